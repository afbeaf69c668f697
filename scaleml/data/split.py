"""Which rows are held out, and the order of the others: decided once, from the seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def hold_out(n: int, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Shuffle ``n`` rows by ``seed`` and hold out a fraction of them.

    Returns
    -------
    train, held_out : int arrays
        Row numbers, in no particular order; ``held_out`` is empty when ``fraction`` is 0.
    """
    order = np.random.default_rng([seed, 0x5CA1E]).permutation(n)
    held = round(n * fraction)
    return order[held:], order[:held]
