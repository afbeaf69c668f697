"""History: the columnar record of one run. What every rank did in every interval, held-out evaluations, and what changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np

from scaleml.checks import check_integer
from scaleml.telemetry.bundle import mimebundle
from scaleml.telemetry.columns import AT as _AT
from scaleml.telemetry.columns import COLUMNS, EPOCH, EVALUATION, Measures, merge_pairs
from scaleml.telemetry.noise_scale import NoiseScale, noise_scale
from scaleml.telemetry.recovery import Recovery

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray


__all__ = ["COLUMNS", "EPOCH", "EVALUATION", "Change", "History", "Mark", "Measures"]


class Change(NamedTuple):
    """Something that changed in mid-run.

    Attributes
    ----------
    time : float
        When, on the training clock.
    text : str
        What, in words.
    step : int
        Before which step of the rank that says so; -1: unknown.
    kind : {"setting", "strategy", "fault"}
    rank : int
        Who says so; -1: unknown.
    fault : dict or None
        What goes wrong, as the command that injects it describes it: its class by ``name`` and its ``fields``.
    """

    time: float
    text: str
    step: int = -1
    kind: str = "setting"
    rank: int = -1
    fault: Mapping[str, Any] | None = None


Mark = Callable[[float, str, int, str, int, Mapping[str, Any] | None], object]
"""`History.mark`, as whoever tells of changes sees it."""


@final
class History:
    """Everything that was measured of one run, by column.

    One row is one interval of one rank: one step, or the sums over a few short steps. Seconds and bytes are those of
    the row; `step`, `epoch`, `time` and `samples` stand at its end. Safe to read while another thread appends.

    Parameters
    ----------
    max_rows : int, default 400_000
        The most rows kept (160 bytes each). When they are reached, neighbouring rows of a rank in the older half are
        merged two by two: sums and means stay exact, only the resolution of the past is halved.

    Attributes
    ----------
    changes : list of Change
        What changed in mid-run: a new learning rate or strategy, a lost worker, a fault; when, after which step.
    marks : list of (float, str)
        The same, as times on the training clock and words.
    recoveries : tuple of Recovery
        How long each return from a loss took, phase by phase.

    Examples
    --------
    >>> history = History()
    >>> history.add_evaluation(time=0.0, samples=0, step=0, loss=0.69, score=0.5)
    >>> row = [0, 1, 0.1, 0.02, 256, 0.65, 0, 0.015, 0.002, 0.002, 0.001, 0, 800, 800, 1, 1, 0, 0, 0, 0]
    >>> history.append_rows([row])
    >>> float(history["loss"][0]), len(history), float(history.evaluations["loss"][0])
    (0.65, 1, 0.69)
    """

    def __init__(self, max_rows: int = 400_000) -> None:
        check_integer(
            "max_rows", max_rows, 16, rule="at least 16, the rows that a history keeps; leave it at its default"
        )
        self.changes: list[Change] = []
        self._max_rows = max_rows
        self._lock = threading.Lock()
        self._rows: NDArray[np.float64] = np.empty((min(1024, max_rows), len(COLUMNS)))
        self._used = 0
        self._appended = 0
        self._clocks: dict[int, float] = {}
        self._evaluated_until = 0.0
        self._evaluations: list[tuple[float, ...]] = []
        self._evaluated: NDArray[np.float64] | None = None  # the same as a table, until there is one more
        self._epochs: list[tuple[float, ...]] = []
        self._recoveries: list[Recovery] = []
        self._rewinds: list[tuple[int, int, int]] = []  # to which step, rows appended until then, rows forgotten

    def append_bytes(self, data: bytes) -> None:
        """Append rows as they come from the wire.

        Parameters
        ----------
        data : bytes
            A C-ordered float64 array of shape (n, 20), by `tobytes()`.

        Raises
        ------
        ValueError
            If the length is not a whole number of rows.
        """
        if len(data) % (8 * len(COLUMNS)):
            raise ValueError(
                f"{len(data)} bytes are no whole number of rows of {8 * len(COLUMNS)} bytes; "
                "the sender runs another version of scaleml: install the same one on client and workers."
            )
        self.append_rows(np.frombuffer(data, dtype=np.float64).reshape(-1, len(COLUMNS)))

    def take(self, rows: bytes, evaluations: Iterable[Measures], epochs: Iterable[Measures]) -> None:
        """Append all that a rank noted; called from Dask's event loop."""
        self.append_bytes(rows)
        for evaluation in evaluations:
            self.add_evaluation(*evaluation)
        for epoch in epochs:
            self.add_epoch(*epoch)

    def append_rows(self, rows: ArrayLike) -> None:
        """Append rows of shape (n, 20) in the order of `COLUMNS`; they are copied."""
        rows = np.asarray(rows, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(COLUMNS):
            raise ValueError(
                f"rows have shape {rows.shape}, but a history takes (n, {len(COLUMNS)}): a column for each of COLUMNS."
            )
        with self._lock:
            # No more than a quarter of the history at once, so that thinning the older half always makes room.
            for start in range(0, len(rows), max(1, self._max_rows // 4)):
                part = rows[start : start + max(1, self._max_rows // 4)]
                self._reserve(len(part))
                self._rows[self._used : self._used + len(part)] = part
                self._used += len(part)
                self._appended += len(part)
            for rank in np.unique(rows[:, _AT["rank"]]).astype(np.int64).tolist():
                latest = float(rows[rows[:, _AT["rank"]] == rank, _AT["time"]].max())
                self._clocks[rank] = max(latest, self._clocks.get(rank, 0.0))

    def add_evaluation(self, time: float, samples: float, step: float, loss: float, score: float) -> None:
        """Append an evaluation on held-out data: training clock (s), rows consumed by all ranks, steps, loss, score."""
        with self._lock:
            if any(one[0] == time and one[1] == samples for one in self._evaluations[-512:]):
                return  # told once more, after a loss
            self._evaluations.append((float(time), float(samples), float(step), float(loss), float(score)))
            self._evaluated = None
            self._evaluated_until = max(self._evaluated_until, float(time))

    def add_epoch(self, number: float, loss: float, score: float, is_last: float) -> None:
        """Append the end of an epoch of a run with a stop rule: mean objective, held-out score, whether the rule ends it."""
        with self._lock:
            if any(one[0] == number for one in self._epochs[-512:]):
                return  # told once more, after a loss
            self._epochs.append((float(number), float(loss), float(score), float(is_last)))

    def rewind(self, step: int) -> None:
        """Forget the rows, evaluations and ends of epochs after a step (-1: all of them): the run goes on from there, after a loss."""
        with self._lock:
            rows = self._rows[: self._used]
            kept = rows[rows[:, _AT["step"]] <= step]
            self._rewinds.append((step, self._appended, self._used - len(kept)))
            self._rows[: len(kept)] = kept
            self._used = len(kept)
            self._evaluations = [one for one in self._evaluations if one[EVALUATION.index("step")] <= step]
            self._evaluated = None
            epochs = kept[:, _AT["epoch"]].max(initial=0.0)
            self._epochs = [one for one in self._epochs if one[0] <= epochs]

    def mark(
        self,
        time: float,
        text: str,
        step: int = -1,
        kind: str = "setting",
        rank: int = -1,
        fault: Mapping[str, Any] | None = None,
    ) -> None:
        """Note that something changed; see `Change`."""
        self.changes.append(Change(float(time), str(text), int(step), str(kind), int(rank), fault))

    def note_recovery(self, recovery: Recovery) -> None:
        """Note how a run came back from a loss; what is known of the newest is renewed when its first new step is taken."""
        is_known = self._recoveries and self._recoveries[-1].time == recovery.time
        self._recoveries[-1 if is_known else len(self._recoveries) :] = [recovery]

    @property
    def recoveries(self) -> tuple[Recovery, ...]:
        """How the run came back from losses, in their order."""
        return tuple(self._recoveries)

    @property
    def marks(self) -> list[tuple[float, str]]:
        """What changed in mid-run, and when on the training clock."""
        return [(change.time, change.text) for change in self.changes]

    def __len__(self) -> int:
        return self._used

    @property
    def appended(self) -> int:
        """How many rows were ever appended: the cursor for `since`."""
        return self._appended

    @property
    def rows(self) -> NDArray[np.float64]:
        """All rows by arrival, (n, 20), a copy."""
        with self._lock:
            return self._rows[: self._used].copy()

    def clock(self, workers: int) -> float:
        """What the training clock shows (s): of the ranks below `workers`, and of evaluations; a server's is no training time."""
        with self._lock:
            return max(self._evaluated_until, *(time for rank, time in self._clocks.items() if rank < workers), 0.0)

    def since(self, cursor: int) -> tuple[NDArray[np.float64], int]:
        """Rows appended since `cursor` (0 at first), and the cursor for the next call: for readers of a live run."""
        with self._lock:
            new = min(self._unseen(cursor), self._used)
            return self._rows[self._used - new : self._used].copy(), self._appended

    @property
    def rewinds(self) -> tuple[int, ...]:
        """The steps that were gone back to, in their order."""
        return tuple(step for step, _, _ in self._rewinds)

    def _unseen(self, cursor: int) -> int:
        """Return how many rows that were appended since are still there: a rewind forgets the newest."""
        unseen = 0
        for _, appended, forgotten in self._rewinds:
            if appended > cursor:
                unseen, cursor = max(0, unseen + appended - cursor - forgotten), appended
        return unseen + max(0, self._appended - cursor)

    def __getitem__(self, column: str) -> NDArray[np.float64]:
        """One column of all rows by arrival, (n,), a copy."""
        if column not in _AT:
            raise KeyError(f"no column {column!r} in a history; there are: {', '.join(COLUMNS)}.")
        with self._lock:
            return self._rows[: self._used, _AT[column]].copy()

    @property
    def evaluations(self) -> dict[str, NDArray[np.float64]]:
        """The held-out evaluations by column: time, samples, step, loss, score; each (m,)."""
        with self._lock:
            if self._evaluated is None:
                self._evaluated = np.array(self._evaluations, dtype=np.float64).reshape(-1, len(EVALUATION))
            table = self._evaluated
        return {name: table[:, i].copy() for i, name in enumerate(EVALUATION)}

    @property
    def epochs(self) -> dict[str, NDArray[np.float64]]:
        """The ends of epochs by column: number, loss, score (NaN without one), is_last; empty without a stop rule."""
        with self._lock:
            table = np.array(self._epochs, dtype=np.float64).reshape(-1, len(EPOCH))
        return {name: table[:, i].copy() for i, name in enumerate(EPOCH)}

    @property
    def noise_scale(self) -> NoiseScale:
        """The gradient noise scale where the run stands now: above about so many rows a larger batch buys little."""
        return noise_scale(self.rows)

    def to_frame(self) -> pd.DataFrame:
        """All rows as a pandas frame, one column for each of `COLUMNS`; counts are integers."""
        import pandas as pd

        frame = pd.DataFrame(self.rows, columns=list(COLUMNS))
        whole = ["rank", "step", "samples", "bytes_sent", "bytes_received", "waited_for", "updates", "biased"]
        return frame.astype(dict.fromkeys(whole, "int64"))

    def __repr__(self) -> str:
        losses = self.evaluations["loss"]
        last = f", held-out loss {losses[-1]:.4g}" if len(losses) else ""
        return (
            f"<History: {self._used:,} rows of {len(np.unique(self['rank']))} ranks, {len(losses)} evaluations{last}>"
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return mimebundle(self)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {name: value for name, value in vars(self).items() if name != "_lock"}
            return state | {
                "_rows": self._rows[: self._used].copy(),
                "_evaluations": list(self._evaluations),
                "_epochs": list(self._epochs),
                "changes": list(self.changes),
                "_recoveries": list(self._recoveries),
            }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({"_recoveries": [], "_rewinds": []} | state)  # a file of version 0.1 has none
        self._lock = threading.Lock()

    def _reserve(self, more: int) -> None:
        if self._used + more > self._max_rows:
            half = self._used // 2
            older = merge_pairs(self._rows[:half])
            kept = len(older) + self._used - half
            self._rows[len(older) : kept] = self._rows[half : self._used].copy()
            self._rows[: len(older)] = older
            self._used = kept
        if self._used + more > len(self._rows):
            grown = np.empty((max(2 * len(self._rows), self._used + more), len(COLUMNS)))
            grown[: self._used] = self._rows[: self._used]
            self._rows = grown
