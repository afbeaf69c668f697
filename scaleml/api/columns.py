"""Columns of X: whether a trained model can predict for it."""

from __future__ import annotations

from collections.abc import Sequence


def check_width(shape: Sequence[float], features: int) -> None:
    """Raise ValueError unless X has the columns that a model was trained on; NaN stands for an unknown number."""
    if len(shape) != 2 or not (shape[1] == features or shape[1] != shape[1]):
        raise ValueError(
            f"X has shape {tuple(shape)}, but this model was trained on {features} features: pass (rows, {features})"
        )
