"""Measured steps: in which of a run's steps gradient noise is estimated, the same on all ranks and each time."""

from __future__ import annotations

from typing import Final

from scaleml.models.flat_model import X_IS_DENSE, FlatModel, Sparse

SHARE: Final = 0.005
"""Of the time of all steps, that measuring may take: up to twice that, as intervals are powers of two."""
FIRST: Final = 4
"""Steps between two estimates at the start of a run whose steps are short: it may have few."""
RARELY: Final = 512
"""Steps between two estimates, at the most."""


def measuring_interval(
    size: int, rows: float, is_sparse: bool, step: int, is_summed: bool = False, touches: bool = False
) -> int:
    """Return between how many steps one is measured, a power of two: a function of numbers that all ranks know.

    So that measuring takes `SHARE` of the time, by costs in nanoseconds of one core: a step's overhead and what it does with each row,
    with each parameter and with both; and what measuring adds (its code is seldom in the cache).

    Parameters
    ----------
    size : int
        Parameters of the model.
    rows : float
        Rows of a rank's part of the batch.
    is_sparse : bool
        Whether the work on a row does not grow with the parameters.
    step : int
        Which step it is: at the start estimates come denser, where they take but microseconds.
    is_summed : bool
        Whether an estimate takes two dot products, rather than a copy and a comparison of whole gradients.
    touches : bool
        Whether a step goes by the few columns of its rows alone, which an estimate need not.

    Examples
    --------
    >>> [measuring_interval(203_530, 256, False, 0, is_summed) for is_summed in (True, False)]  # an MLP
    [8, 64]
    >>> [measuring_interval(31, 32, False, step) for step in (0, 100, 10_000)]  # a small linear model
    [4, 8, 512]
    """
    overhead, passes = (35_000, 0.6 * size) if is_summed else (70_000, 4.5 * size)
    if touches:
        a_step = 100_000 + 400 * rows
    else:
        a_step = 18_000 + 15 * rows + size * (3 + (0 if is_sparse else 0.04 * rows))
    most = min(RARELY, (overhead + passes) / (SHARE * a_step))
    if passes < overhead:
        most = min(most, step / (16 if is_summed else 8))
    return 1 << max(FIRST, int(most)).bit_length() - 1


def next_measured(after: int, interval: int) -> int:
    """Return the next step to measure: one in each `interval` steps, in another place each time.

    With equal distances an epoch of as many steps would show the same batch each time.

    Examples
    --------
    >>> step, found = -1, []
    >>> for _ in range(5):
    ...     step = next_measured(step, 16)
    ...     found.append(step)
    >>> found
    [0, 25, 35, 61, 71]
    """
    turn = max(0, after) // interval
    while True:
        step = turn * interval + (turn * 40_503 % 65_536) * interval // 65_536  # by the golden ratio: spread evenly
        if step > after:
            return step
        turn += 1


def has_few_columns(model: FlatModel) -> bool:
    """Whether the rows of data have few of a model's columns, so that a gradient's cost is not rows times parameters."""
    return isinstance(model, Sparse) and model.why_dense() != X_IS_DENSE
