"""The gradient noise scale: up to about how many rows a larger batch still pays.

With ``G`` the gradient of the objective and ``S`` the covariance of one data row's gradient, the mean gradient of a batch of ``B``
rows has the expected squared norm ``|G|^2 + tr(S) / B``: half of it is noise where ``B`` is the *noise scale* ``tr(S) / |G|^2``.
A batch well below it is nearly all noise, and twice the batch does nearly as much as twice the steps; well above it
a larger batch only costs more.

Ranks estimate ``tr(S)`` and ``|G|^2`` at some steps (`runtime.gradient_noise` says how); here they are smoothed. Each
estimate alone is far too noisy, and the mean of ratios is no estimate of a ratio: numerator and denominator are averaged, then divided.

References
----------
McCandlish, Kaplan, Amodei et al., An empirical model of large-batch training, 2018, arXiv:1812.06162.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

import numpy as np

from scaleml.telemetry.columns import AT
from scaleml.telemetry.ratio_interval import ratio_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEMORIES: Final = (0.05, 0.1, 0.2)
"""Averages forget with the rows consumed: what is so large a part of all rows so far in the past counts 1/e of the newest."""
ENOUGH: Final = 2.0
"""Ratio of the interval's ends from which no longer memory is tried."""
FORGOTTEN: Final = 2.5
"""Times the memory after which it counts nothing: at the start gradients may be hundreds of times as large."""
FEWEST: Final = 5
"""Blocks of estimates from which an interval is said."""
BLOCKS: Final = 256
"""The most blocks that estimates are summed to: their scatter is what the interval rests on."""
NAN: Final = math.nan


@final
@dataclass(frozen=True)
class NoiseScale:
    """An estimate of the gradient noise scale, with a 95% interval; in rows of data.

    Attributes
    ----------
    rows : float
        The estimate; infinite where ``|G|^2`` is estimated at or below 0, NaN where nothing was measured.
    low, high : float
        The interval; ``high`` is infinite where ``|G|^2`` may as well be 0, ``low`` 0 where nothing is known.
    biased : bool
        Whether it comes from successive gradients of one rank, on parameters that had moved in between. Where steps are large
        that makes the scale look larger.
    trace, squared_norm : float
        The averages of the estimates of ``tr(S)`` and ``|G|^2``.
    samples : float
        Rows consumed by all ranks, where the estimate stands.

    Examples
    --------
    >>> print(NoiseScale(rows=873.0, low=620.0, high=1380.0))
    the gradient noise scale is about 870 rows (620 to 1,400)
    >>> NoiseScale().is_known
    False
    """

    rows: float = NAN
    low: float = 0.0
    high: float = math.inf
    biased: bool = False
    trace: float = NAN
    squared_norm: float = NAN
    samples: float = 0.0

    @property
    def is_known(self) -> bool:
        """Whether the interval has two ends, and they are within a factor of 10."""
        return self.rows < math.inf and 0 < self.high <= 10 * max(self.low, 0.1)

    def __str__(self) -> str:
        if math.isnan(self.rows):
            return "the gradient noise scale was not measured: there were too few steps, or each was of all rows"
        how = ", biased: from successive gradients" if self.biased else ""
        if self.is_known and self.high < 1:
            return f"the gradient noise scale is below 1 row{how}"
        if self.is_known:
            between = f"{round_rows(self.low)} to {round_rows(self.high)}"
            return f"the gradient noise scale is about {round_rows(self.rows)} rows ({between}{how})"
        if self.low >= 1:
            return f"the gradient noise scale is at least about {round_rows(self.low)} rows (95%{how}); more steps would tell"
        return f"the gradient noise scale cannot be told from so few steps{how}"


@final
class NoiseCurve(NamedTuple):
    """The estimate along a run.

    Attributes
    ----------
    samples, rows : (m,) arrays
        Rows consumed by all ranks, and the estimate there; NaN where it is not known.
    biased : (m,) bool array
        Whether it comes from successive gradients.
    """

    samples: NDArray[np.float64]
    rows: NDArray[np.float64]
    biased: NDArray[np.bool_]


def noise_scale(rows: NDArray[np.float64]) -> NoiseScale:
    """Return the estimate where a run stands now.

    Parameters
    ----------
    rows : (n, 20) array
        A history's, in the order of `COLUMNS`.

    Examples
    --------
    Batches of 100 rows, each row's gradient (1, 0, ..., 0) and noise of variance 4 in 50 directions, on two ranks of 50:

    >>> from scaleml.telemetry import COLUMNS
    >>> random = np.random.default_rng(0)
    >>> table = np.zeros((400, len(COLUMNS)))
    >>> for step in range(400):
    ...     parts = np.eye(50)[0] + random.normal(scale=2 / np.sqrt(50), size=(2, 50))
    ...     mean, noise = parts.mean(axis=0), 50 * np.square(parts - parts.mean(axis=0)).sum()
    ...     values = {"time": step, "step": step, "samples": 100 * step, "signal": mean @ mean - noise / 100}
    ...     for name, value in (values | {"noise": noise, "noise_weight": 1}).items():
    ...         table[step, COLUMNS.index(name)] = value
    >>> scale = noise_scale(table)
    >>> scale.low < 200 < scale.high, 170 < scale.rows < 230
    (True, True)
    """
    blocks = _blocks(rows)
    return NoiseScale() if blocks is None else blocks.at(len(blocks.samples) - 1)


def noise_curve(rows: NDArray[np.float64], points: int = 100) -> NoiseCurve:
    """Return the estimate along a run, at up to `points` places; see `noise_scale`."""
    blocks = _blocks(rows)
    if blocks is None:
        nothing = np.empty(0)
        return NoiseCurve(nothing, nothing, nothing.astype(bool))
    places = np.unique(np.linspace(0, len(blocks.samples) - 1, points).astype(np.int64))
    found = [blocks.at(int(place)) for place in places]
    known = np.array([scale.rows if scale.is_known else NAN for scale in found])
    return NoiseCurve(blocks.samples[places], known, blocks.biased[places])


def noise_sentence(scale: NoiseScale) -> str:
    """Return the noise scale as a sentence of a run's summary, with what it means.

    >>> noise_sentence(NoiseScale(rows=873.0, low=620.0, high=1380.0))
    'The gradient noise scale is about 870 rows (620 to 1,400): a batch above it buys little.'
    """
    text = str(scale)
    return text[0].upper() + text[1:] + (": a batch above it buys little." if scale.is_known else ".")


def noise_reason(scale: NoiseScale, batch_size: int | None = None) -> str:
    """Return what the noise scale says of batches, as a sentence of a verdict; nothing where it says nothing.

    Parameters
    ----------
    scale : NoiseScale
        Of the run with the largest batch, say; see `History.noise_scale`.
    batch_size : int, optional
        The one it was measured with.

    Examples
    --------
    >>> noise_reason(NoiseScale(rows=873.0, low=620.0, high=1380.0))
    'A batch above about 870 rows (620 to 1,400) buys little here: that is the gradient noise scale.'
    >>> noise_reason(NoiseScale(rows=87.0, low=62.0, high=138.0), 4096)
    'The batch of 4,096 rows is above the gradient noise scale, about 87 rows (62 to 140): a larger one buys nothing here.'
    >>> noise_reason(NoiseScale())
    ''
    """
    how = ", biased: from successive gradients of one rank" if scale.biased else ""
    if not scale.is_known:
        if scale.low >= 1 and not scale.biased and (batch_size is None or scale.low > batch_size):
            most = round_rows(scale.low)
            return f"Larger batches still pay here, up to at least about {most} rows: the gradient noise scale is above that."
        return ""
    about = f"about {round_rows(scale.rows)} rows ({round_rows(scale.low)} to {round_rows(scale.high)}{how})"
    if batch_size is not None and batch_size > scale.high:
        batch = f"The batch of {batch_size:,} rows"
        return f"{batch} is above the gradient noise scale, {about}: a larger one buys nothing here."
    return f"A batch above {about} buys little here: that is the gradient noise scale."


def round_rows(value: float) -> str:
    """A number of rows to two digits: no more is known.

    >>> round_rows(873.2), round_rows(1_432), round_rows(0.31), round_rows(96)
    ('870', '1,400', '0.31', '96')
    """
    if value <= 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):,.{max(0, digits)}f}" if value < 10 else f"{round(value, digits):,.0f}"


@final
@dataclass(frozen=True)
class _Blocks:
    """Estimates of neighbouring rows, summed: all arrays are (m,)."""

    samples: NDArray[np.float64]
    noise: NDArray[np.float64]
    signal: NDArray[np.float64]
    weight: NDArray[np.float64]
    biased: NDArray[np.bool_]
    estimates_an_epoch: float
    """Different batches that there are, in units of `weight`: in another epoch they come again."""

    def at(self, last: int) -> NoiseScale:
        """Return the estimate after block `last`, from blocks of its kind: with the longest memory that the shorter ones agree with.

        The noise scale grows as the loss falls, by orders of magnitude: a long memory is precise, and may be of the past. (Lepski's
        method: memories are tried longer and longer until an interval has nothing in common with those before, or tells enough.)
        """
        found, low, high = self._average(last, MEMORIES[-1]), 0.0, math.inf
        for memory in MEMORIES:
            scale = self._average(last, memory)
            if max(low, scale.low) > min(high, scale.high):
                break
            if scale.low > 0:  # it says something
                found, low, high = scale, max(low, scale.low), min(high, scale.high)
            if scale.high <= ENOUGH * scale.low:
                break
        return found

    def _average(self, last: int, memory: float) -> NoiseScale:
        """Return the ratio of exponential averages, with an interval where there are enough estimates."""
        here, biased = float(self.samples[last]), bool(self.biased[last])
        age = (here - self.samples[: last + 1]) / (memory * max(here, 1e-12))
        known = np.flatnonzero((self.biased[: last + 1] == biased) & (age <= FORGOTTEN))
        decay = np.exp(-age[known])
        noise, signal, weight = self.noise[known], self.signal[known], self.weight[known]
        total = float(decay @ weight)
        trace, norm = float(decay @ noise) / total, float(decay @ signal) / total
        rows = trace / norm if norm > 0 else math.inf
        effective = float(decay.sum()) ** 2 / float(decay @ decay)
        low, high = 0.0, math.inf
        if effective >= FEWEST:
            repeats = self._repeats(decay, weight)
            scatter = (decay * (noise - weight * trace), decay * (signal - weight * norm))
            low, high = ratio_interval(trace * total, norm * total, scatter, effective, repeats)
        return NoiseScale(rows, low, high, biased, trace, norm, here)

    def _repeats(self, decay: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
        """How many times the same batches are in the average: that many estimates of one are no more than one."""
        count = float(decay @ weight) ** 2 / float((decay * decay) @ weight)
        return max(1.0, count / self.estimates_an_epoch)


def _blocks(rows: NDArray[np.float64]) -> _Blocks | None:
    """Sum the estimates of all ranks by time, each block of one kind; None where there is none."""
    rows = rows[np.argsort(rows[:, AT["time"]], kind="stable")]
    rank, samples = rows[:, AT["rank"]], rows[:, AT["samples"]]
    gained = np.zeros(len(rows))
    for one in np.unique(rank):
        mine = rank == one
        gained[mine] = np.diff(samples[mine], prepend=0.0)
    has = rows[:, AT["noise_weight"]] > 0
    finite = np.isfinite(rows[:, [AT["noise"], AT["signal"]]]).all(axis=1)
    used = np.flatnonzero(has & finite)
    if not len(used):
        return None
    ranks = len(np.unique(rank[used]))
    biased = rows[used, AT["biased"]] > 0
    # A block is of so many rows that each rank has one in it: estimates of one step by several ranks belong together.
    count = max(1, min(BLOCKS, len(used) // ranks))
    turns = np.flatnonzero(np.diff(biased)) + 1
    starts = np.union1d(np.linspace(0, len(used), count, endpoint=False).astype(np.int64), turns)
    ends = np.r_[starts[1:], len(used)] - 1
    sums = np.add.reduceat(rows[used][:, [AT["noise"], AT["signal"], AT["noise_weight"]]], starts, axis=0)
    done = np.cumsum(gained)[used[ends]]
    trains = samples > 0  # servers do not
    workers = len(np.unique(rank[trains]))
    steps, epochs = (float(rows[trains, AT[name]].max(initial=0.0)) for name in ("step", "epoch"))
    of_one_batch = workers if biased[-1] else max(1, workers - 1)
    return _Blocks(
        samples=done,
        noise=sums[:, 0],
        signal=sums[:, 1],
        weight=sums[:, 2],
        biased=biased[starts],
        estimates_an_epoch=max(1.0, of_one_batch * steps / epochs) if epochs > 0 else math.inf,
    )
