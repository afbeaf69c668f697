"""Clipping of gradients by their norm."""

from __future__ import annotations

import math

from scaleml.arrays import Array, namespace

__all__ = ["clip", "clip_queued"]


def clip(g: Array, max_norm: float) -> float:
    """Scale `g` in place so that its Euclidean norm is at most `max_norm`; return its norm before.

    Parameters
    ----------
    g : array of shape (P,)
        The whole gradient; left alone if its norm is not finite.
    max_norm : float
        Greater than 0.

    Returns
    -------
    float
        The norm before: NaN or infinite if `g` holds such values.

    Raises
    ------
    ValueError
        `max_norm` is not greater than 0.

    Notes
    -----
    PyTorch's ``clip_grad_norm_`` divides by ``norm + 1e-6``, and so scales by about a millionth of the norm more.

    References
    ----------
    Pascanu, Mikolov and Bengio: On the difficulty of training recurrent neural networks, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> g = np.array([3.0, 4.0])
    >>> clip(g, 1.0), g.round(1).tolist()
    (5.0, [0.6, 0.8])
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm={max_norm!r}: must be greater than 0; use None as clip_norm for no clipping.")
    norm = math.sqrt(float(g @ g))
    if math.isinf(norm):  # the squares may overflow where the values do not
        largest = float(abs(g).max())
        if math.isfinite(largest):
            scaled = g / largest
            norm = largest * math.sqrt(float(scaled @ scaled))
    if norm > max_norm and math.isfinite(norm):
        g *= max_norm / norm
    return norm


def clip_queued(g: Array, squares: Array | float, max_norm: float) -> None:
    """Do what `clip` does without a look at the norm: ``squares`` is that of `g`, an array of no dimensions on a GPU."""
    xp = namespace(g)
    factor = max_norm / xp.sqrt(xp.asarray(squares, "float64"))
    g *= xp.minimum(factor, 1.0).astype(g.dtype)
