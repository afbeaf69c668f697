"""The two ends of a module: hints where its outputs are squashed twice, and which inputs may be pixels that nobody has scaled."""

from __future__ import annotations

from typing import Literal

import numpy as np

from scaleml.checks import hint
from scaleml.frameworks.objective import Link
from scaleml.models.base import Signature

__all__ = ["Squash", "hint_of_squash", "may_be_pixels"]

Squash = Literal["sigmoid", "softmax"]
"""What makes probabilities of scores."""


def hint_of_squash(label: str, loss: str, link: Link | None, last: Squash | None) -> None:
    """Say it where a loss makes probabilities of outputs that are some already, or takes them for their logarithms.

    Parameters
    ----------
    label, loss : str
        The module and its loss, in words.
    link : {"softmax", "sigmoid", "exp"} or None
        What makes probabilities of outputs, as the loss sees them.
    last : {"softmax", "sigmoid"} or None
        What the module ends in.
    """
    if last is None or link is None:
        return
    if link == "exp":
        hint(
            f"{label} returns probabilities, by its last {last}, but {loss} takes their logarithms: have it return the scores, without "
            f"its last {last}, and use loss='cross_entropy'; or end in a log_softmax"
        )
        return
    hint(
        f"{label} returns probabilities, by its last {last}, of which {loss} takes the {link} again, so that it learns slowly: have it "
        f"return the scores, without its last {last}; run.model.predict_proba gives probabilities"
    )


def may_be_pixels(signature: Signature) -> bool:
    """Whether rows of X may be pixels from 0 to 255: bytes, also as one of several inputs, or floats of several axes.

    Examples
    --------
    >>> [may_be_pixels(Signature(48, row=np.dtype((kind, (3, 4, 4))))) for kind in ("uint8", "float32", "int64")]
    [True, True, False]
    """
    row = signature.row
    if row is None:
        return False
    parts = [row[name] for name in row.names] if row.names else [row]
    return any(part.base == np.uint8 for part in parts) or (
        row.names is None and row.base.kind == "f" and len(row.shape) > 1
    )
