"""L-BFGS: quasi-Newton steps from the last changes of the gradient, each as long as a line search says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import numpy as np

from scaleml.arrays import Array, namespace
from scaleml.checks import check_integer
from scaleml.optim.base import Optimizer
from scaleml.optim.line_search import ITEMS, LineSearch
from scaleml.optim.settings import set_number, set_unused

__all__ = ["LBFGS"]

REASONS: Final = (
    "it goes on",
    "the gradient is small: at most tol",
    "the loss falls no further: by less than ftol of itself",
    "max_iter iterations",
    "no step along the line of descent lowers the loss: rounding prevents progress",
)
"""Why it has ended, by `LBFGS.ended`."""
GRADIENT, LOSS, ITERATIONS, LINE = 1, 2, 3, 4
_EPSILON: Final = float(np.finfo(np.float64).eps)
# What the array "search" holds beside the line search and the pairs' 1 / (s . y).
_ENDED, _ITERATIONS, _EVALUATIONS, _PAIRS, _NEWEST, _LOSS, _SCALE, _SLOPE, _FIRST = range(9)
_FIXED: Final = 9


@final
@dataclass(frozen=True, repr=False)
class LBFGS(Optimizer):
    """Limited-memory BFGS with a line search, on the gradient of all rows: for convex models, in few passes over the data.

    ::

        d <- -H g                                  H from the last `memory` pairs s = change of w, y = change of g
        w <- w + a d                               a from a line search (Moré and Thuente): strong Wolfe conditions

    One step of a run is one evaluation of loss and gradient over all rows, at a trial point; ``batch_size`` says nothing, and an epoch is
    such a step. Under `AllReduce` every rank does the same arithmetic on the same sums, and so comes to the same decisions, to the
    bit; on `Serial` there is one rank. No other strategy can: they never have the gradient of all rows at one point.

    Parameters
    ----------
    learning_rate : float
        The first trial of a line search, in quasi-Newton steps; 1 is right.
    tol : float
        It has converged where no component of the objective's gradient is larger.
    ftol : float
        ... or where an iteration lowers the objective by less than this share of it.
    max_iter : int or None
        Iterations, each of one evaluation or a few more; None for as many as the epochs allow.
    memory : int
        Pairs that are kept: two vectors each.
    max_trials : int
        Of a line search.

    Raises
    ------
    ValueError
        A value breaks its rule.

    Notes
    -----
    The defaults are those of scikit-learn's ``LogisticRegression(solver="lbfgs")``, and so is the way, to rounding. All of it is kept in
    float64, the model's vector being rounded to its own dtype.

    References
    ----------
    Liu and Nocedal, On the limited memory BFGS method for large scale optimization, 1989. Agarwal, Chapelle, Dudík and Langford,
    A reliable effective terascale linear learning system, JMLR 2014.

    Examples
    --------
    >>> import numpy as np
    >>> rule, w = LBFGS(), np.zeros(2)
    >>> state = rule.init(2, w.dtype)
    >>> while not rule.ended(state):
    ...     rule.search(w, w - [3.0, -1.0], 0.5 * float((w - [3.0, -1.0]) @ (w - [3.0, -1.0])), state, 1.0)
    >>> w.round(6).tolist(), rule.iterations(state)
    ([3.0, -1.0], 2)
    """

    learning_rate: float = 1.0
    tol: float = 1e-4
    ftol: float = 64 * _EPSILON
    max_iter: int | None = None
    memory: int = 10
    max_trials: int = 50

    takes_all_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        set_unused(self)
        set_number(self, "learning_rate", 0, open_low=True)
        set_number(self, "tol", 0)
        set_number(self, "ftol", 0)
        if self.max_iter is not None:
            object.__setattr__(self, "max_iter", check_integer("max_iter", self.max_iter, 0))
        object.__setattr__(self, "memory", check_integer("memory", self.memory, 1))
        object.__setattr__(self, "max_trials", check_integer("max_trials", self.max_trials, 1))

    def slots(self) -> tuple[str, ...]:
        """Return where it stands, the gradient there, the direction, and the pairs."""
        pairs = (f"{what}{pair}" for pair in range(self.memory) for what in ("s", "y"))
        return ("x", "g", "d", *pairs)

    def init(self, size: int, dtype: str | np.dtype[Any], like: Array | None = None) -> dict[str, Array]:
        """Return the state before the first evaluation: float64, whatever ``dtype``, and the numbers of the search."""
        state = super().init(size, "float64", like)
        state["search"] = np.zeros(_FIXED + self.memory + ITEMS)
        return state

    def update(self, w: Array, g: Array, slots: tuple[Array, ...], t: int, rate: float) -> None:
        """Refuse: it needs the loss, too; see `search`."""
        raise TypeError("L-BFGS searches along a line, for which it needs the loss: call search()")

    def search(self, w: Array, g: Array, loss: float, state: dict[str, Array], rate: float) -> None:
        """Take in the objective and its gradient at ``w``; write the next point to evaluate into ``w``.

        Once `ended` is true, ``w`` is where it ended, and stays.

        Parameters
        ----------
        w, g : arrays of shape (P,)
            ``g`` is left alone.
        loss : float
            The objective at ``w``: a sum over all rows divided by their weight, with the penalty.
        state : dict of arrays
            From `init`.
        rate : float
            The first trial of a line search.
        """
        info = state["search"]
        if info[_ENDED]:
            w[...] = state["x"]
            return
        info[_EVALUATIONS] += 1
        if info[_EVALUATIONS] == 1:
            state["x"][...], state["g"][...] = w, g
            info[_LOSS], info[_SCALE], info[_FIRST] = loss, 1.0, 1.0
            if _largest(g) <= self.tol:
                info[_ENDED] = GRADIENT
                return
            self._begin_line(state, rate)
        else:
            line = LineSearch.load(info[-ITEMS:])
            if line.tell(loss, _dot(g, state["d"])) == "done":
                self._arrive(g, loss, line.step, state)
                if not info[_ENDED]:
                    self._begin_line(state, rate)
            elif line.evaluations >= self.max_trials:
                self._start_again(state, rate)
            else:
                line.save(info[-ITEMS:])
        w[...] = state["x"] if info[_ENDED] else state["x"] + LineSearch.load(info[-ITEMS:]).step * state["d"]

    def ended(self, state: dict[str, Array]) -> int:
        """Return why it has ended, as an index of `REASONS`; 0 where it goes on."""
        return int(state["search"][_ENDED])

    def iterations(self, state: dict[str, Array]) -> int:
        """Return the steps that were taken: line searches that came to their end."""
        return int(state["search"][_ITERATIONS])

    def objective(self, state: dict[str, Array]) -> float:
        """Return the objective where the last line search has come to."""
        return float(state["search"][_LOSS])

    def result(self, w: Array, state: dict[str, Array], t: int) -> Array:
        """Return the point that the last line search has come to, not a trial."""
        return w if not state["search"][_EVALUATIONS] else state["x"].astype(w.dtype)

    def _arrive(self, g: Array, loss: float, step: float, state: dict[str, Array]) -> None:
        """Move to the end of a line search, keep the changes as a pair, and see whether that is enough."""
        info, d = state["search"], state["d"]
        before, slope, slope_now = float(info[_LOSS]), float(info[_SLOPE]), _dot(g, d)
        state["x"] += step * d
        info[_ITERATIONS] += 1
        info[_LOSS] = loss
        if self.max_iter is not None and info[_ITERATIONS] >= self.max_iter:
            info[_ENDED] = ITERATIONS
        elif _largest(g) <= self.tol:
            info[_ENDED] = GRADIENT
        elif before - loss <= self.ftol * max(abs(before), abs(loss), 1.0):
            info[_ENDED] = LOSS
        curvature = (slope_now - slope) * step  # s . y
        if curvature > -_EPSILON * slope * step:
            newest = int(info[_NEWEST] + 1) % self.memory if info[_PAIRS] else 0
            xp = namespace(d)
            xp.multiply(d, step, out=state[f"s{newest}"])
            y = xp.subtract(g, state["g"], out=state[f"y{newest}"])
            info[_NEWEST], info[_PAIRS] = newest, min(self.memory, info[_PAIRS] + 1)
            info[_FIXED + newest], info[_SCALE] = 1 / curvature, curvature / _dot(y, y)
        state["g"][...] = g

    def _begin_line(self, state: dict[str, Array], rate: float) -> None:
        """Choose a direction, and the first trial along it."""
        info = state["search"]
        d = self._direct(state)
        slope = _dot(state["g"], d)
        if slope >= 0:
            self._start_again(state, rate)
            return
        # Of the first direction, the gradient, nothing says how far to go: a step of length 1.
        step = rate / math.sqrt(_dot(d, d)) if info[_FIRST] else rate
        info[_FIRST], info[_SLOPE] = 0.0, slope
        LineSearch.begin(float(info[_LOSS]), slope, step).save(info[-ITEMS:])

    def _start_again(self, state: dict[str, Array], rate: float) -> None:
        """Forget the pairs where a line search found nothing, and try the gradient; if that was it, end."""
        info = state["search"]
        if not info[_PAIRS]:
            info[_ENDED] = LINE
            return
        info[_PAIRS], info[_SCALE] = 0, 1.0
        self._begin_line(state, rate)

    def _direct(self, state: dict[str, Array]) -> Array:
        """Return ``-H g`` in the slot of the direction, by the two loops over the pairs."""
        info, d = state["search"], state["d"]
        pairs = [int(info[_NEWEST] - back) % self.memory for back in range(int(info[_PAIRS]))]
        namespace(d).negative(state["g"], out=d)
        shares = []
        for pair in pairs:
            share = float(info[_FIXED + pair]) * _dot(state[f"s{pair}"], d)
            d -= share * state[f"y{pair}"]
            shares.append(share)
        d *= float(info[_SCALE])
        for pair, share in zip(reversed(pairs), reversed(shares), strict=True):
            d += (share - float(info[_FIXED + pair]) * _dot(state[f"y{pair}"], d)) * state[f"s{pair}"]
        return d


def _dot(a: Array, b: Array) -> float:
    """Return the inner product by NumPy's own sum: the same bits on all processors, which BLAS does not promise."""
    return float((a * b).sum(dtype=np.float64))


def _largest(g: Array) -> float:
    return float(abs(g).max())
