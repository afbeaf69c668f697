"""Suited models: which shipped model data is for that is no table."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from scaleml.frameworks.residual_network import ResidualNetwork
from scaleml.frameworks.text_classifier import TextClassifier
from scaleml.models.base import Model

__all__ = ["has_torch", "suited"]


def suited(X: Any) -> Model | None:
    """Return the model for images, (n, channels, height, width), or for texts as token numbers; None for anything else.

    Examples
    --------
    >>> import numpy as np
    >>> suited(np.zeros((5, 3, 32, 32), "u1")), suited(np.zeros((5, 7)))
    (ResidualNetwork(width=16), None)
    """
    if isinstance(X, dict):
        return TextClassifier() if set(X) == {"tokens", "lengths"} else None
    return ResidualNetwork() if len(getattr(X, "shape", ())) == 4 else None


def has_torch() -> bool:
    """Whether PyTorch is installed here, which these models need."""
    return find_spec("torch") is not None
