"""The interval of a ratio of two averages, which may have no upper end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def ratio_interval(
    above: float,
    below: float,
    scatter: tuple[NDArray[np.float64], NDArray[np.float64]],
    effective: float,
    repeats: float,
) -> tuple[float, float]:
    """Return the 95% interval of a ratio of two correlated sums, by Fieller's theorem.

    It has the ratios R for which ``above - R below`` may be 0: those with ``(above - R below)^2 <= t^2 var(above - R below)``.

    Parameters
    ----------
    scatter : pair of (m,) arrays
        By how much each block's share of the sums differs from its expectation.
    effective : float
        Of how many equal blocks the sums are.
    repeats : float
        How many times the variance is what independent blocks would have.

    Returns
    -------
    low, high : float
        Never negative. ``high`` is infinite where the sum below may be 0; where that above may be 0 as well, it is 0 to infinity.

    Examples
    --------
    >>> import numpy as np
    >>> scatter = np.array([3.0, -3.0] * 8), np.array([0.5, 0.5, -0.5, -0.5] * 4)
    >>> [round(end, 1) for end in ratio_interval(160.0, 16.0, scatter, 16.0, 1.0)]
    [7.4, 14.3]
    >>> low, high = ratio_interval(160.0, 4.0, scatter, 16.0, 1.0)
    >>> round(low, 1), high
    (18.4, inf)

    References
    ----------
    Fieller, Some problems in interval estimation, JRSS B 1954.
    """
    t = 1.96 + 3.0 / (effective - 1)  # Student's, to 3%
    spread = t * t * repeats * effective / (effective - 1)
    a = below * below - spread * float(scatter[1] @ scatter[1])
    b = above * below - spread * float(scatter[0] @ scatter[1])
    c = above * above - spread * float(scatter[0] @ scatter[0])
    root = b * b - a * c
    if root < 0 or a == 0:
        return 0.0, math.inf
    ends = sorted(((b - math.sqrt(root)) / a, (b + math.sqrt(root)) / a))
    if a > 0 and below > 0:
        return max(0.0, ends[0]), max(0.0, ends[1])
    if a > 0:  # negative for sure: both are 0 in truth, or the estimates are wrong
        return 0.0, math.inf
    return (max(0.0, ends[1]) if c > 0 else 0.0), math.inf
