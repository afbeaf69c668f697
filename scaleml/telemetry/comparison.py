"""Comparison: runs side by side, in one table, one verdict, one picture."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from scaleml.checks import check_number
from scaleml.escaping import printable
from scaleml.telemetry.comparison_table import cells_of, footnote_of, frame_of, with_speedups
from scaleml.telemetry.environment import Environment
from scaleml.telemetry.run_like import RunLike
from scaleml.telemetry.saved_file import load, save
from scaleml.telemetry.summary import Summary
from scaleml.telemetry.verdict import Verdict
from scaleml.telemetry.verdict.case import Case
from scaleml.telemetry.verdict.judge import judge_case
from scaleml.telemetry.verdict.series import Series, gather

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions, RenderableType

HEAD = (
    "strategy", "workers", "threads", "rows/update", "rate", "rounds", "loss", "score", "time", "to target", "samples/s", "speed-up",
    "95%", "efficiency", "compute", "wait", "comm", "bytes/step", "staleness", "cold",
)  # fmt: skip


@final
class Comparison:
    """Runs of one model on one data set under several strategies, each in several rounds.

    Numbers are medians over the rounds. Speed-up is the serial baseline's time to the target over a contender's own, round by round,
    with its 95% interval, which all that scale hold together, and all that are serial; efficiency is that divided by the workers. The
    baseline is the best of the serial contenders. Where the target was not reached, the ratio of samples a second stands
    instead, marked with a star.

    Parameters
    ----------
    runs : iterable of Run
        Finished, failed or still running; warm-ups and trials of a tuning stage among them.
    target : float, optional
        The held-out loss to be reached. By default the loss that every finished run reached and held.
    ended : str, optional
        Why runs are missing that were asked for; the verdict says so.
    notes : sequence of str
        What the verdict is to say besides.
    environment : Environment, optional
        When and where it was measured, on what.
    round_seconds : float, optional
        What a round took, with all that is not training.

    Attributes
    ----------
    runs : tuple of Run
        Those that count: by contender, and in each by round.
    warm_ups, trials : tuple of Run
        Those that do not: before the first round, and of a tuning stage.
    ended : str or None
    notes : tuple of str
    environment : Environment or None

    Examples
    --------
    >>> Comparison([]).verdict
    'Nothing was compared.'
    """

    def __init__(
        self,
        runs: Iterable[RunLike],
        target: float | None = None,
        ended: str | None = None,
        notes: Sequence[str] = (),
        environment: Environment | None = None,
        round_seconds: float | None = None,
    ) -> None:
        rule = "a finite number, the held-out loss to be reached, or None to have one computed"
        self._target = None if target is None else check_number("target", target, rule=rule)
        every = tuple(runs)
        self.runs = tuple(_by_contender([run for run in every if _stage(run) == "round"]))
        self.warm_ups = tuple(run for run in every if _stage(run) == "warm-up")
        self.trials = tuple(run for run in every if _stage(run) == "tuning")
        self.ended = ended
        self.notes = tuple(notes)
        self.environment = environment
        self.round_seconds = round_seconds

    @property
    def name(self) -> str:
        """What its runs' places call it; empty where they say nothing."""
        every = (*self.runs, *self.warm_ups, *self.trials)
        return next((run.place.comparison for run in every if run.place is not None), "")

    @property
    def target(self) -> float | None:
        """The loss to be reached: the one given, else the one that every finished run reached, or None."""
        return self._case.target

    @property
    def series(self) -> list[Series]:
        """The runs of each contender, in the order of the table."""
        return list(self._case.series)

    @property
    def rows(self) -> list[Summary]:
        """One row of medians a contender, with speed-ups."""
        return with_speedups(self._case)

    @property
    def verdict(self) -> Verdict:
        """Which strategy to use, why, and how sure that is; or that none is worth it.

        A string; its `headline`, its `reasons` and `best`, the row of the recommended contender, also stand alone.
        """
        case = self._case
        found = judge_case(case)
        more = (*self.notes, *(() if self.ended is None else (self.ended,)))
        return Verdict(found.headline, (*found.reasons, *more), found.best) if more else found

    @property
    def best(self) -> RunLike | None:
        """The run to use on this evidence, of median time among its rounds: where nobody reached the target, the closest; or None."""
        series, at = self.series, self.verdict.best
        return None if at is None else self.runs[series[at].middle]

    @property
    def _case(self) -> Case:
        return Case(*gather(self.runs, self._target, self.warm_ups), self._target is None, self.round_seconds)

    def table(self) -> pd.DataFrame:
        """The numbers as a pandas frame, one row a contender.

        Returns
        -------
        pandas.DataFrame
            strategy, workers, threads; rounds that count; rows_an_update and learning_rate used; loss and score (held-out, at the end; of
            the training data if nothing was held out); time_s, time_to_target_s, cold_s (time_s and placing the data and starting) and
            cold_to_target_s; samples_per_s, samples_to_target; speedup with its 95% interval from speedup_low to speedup_high,
            efficiency and speedup_by; compute, wait and comm (shares of the ranks' time, the rest is applying updates and other);
            bytes_per_step; staleness; state. `attrs["target"]` is the target.
        """
        return frame_of(self.rows, self.target)

    def lines(self) -> tuple[tuple[str, ...], list[tuple[str, ...]], str]:
        """The table as people read it: headings, cells for each contender, and a footnote."""
        rows, target = self.rows, self.target
        return HEAD, [cells_of(row) for row in rows], self._footnote(rows, target, HEAD)

    def footnote(self, shown: Collection[str]) -> str:
        """Return the footnote of a table with only the columns `shown`."""
        return self._footnote(self.rows, self.target, shown)

    def _footnote(self, rows: list[Summary], target: float | None, shown: Collection[str]) -> str:
        return footnote_of(rows, target, self._target is not None, shown)

    def plot(self) -> Figure:
        """Held-out loss against time and samples, the ledger of every rank, and throughput: a matplotlib Figure."""
        from scaleml.telemetry.figures import comparison_figure

        return comparison_figure(self)

    def to_html(self, path: str | Path) -> Path:
        """Write all of it to one HTML file that needs nothing else, and return its path."""
        from scaleml.telemetry.report import write

        return write({"": self}, path)

    def save(self, path: str | Path) -> Path:
        """Write the runs with their histories and models to a file, whole or not at all, and return its path.

        Nothing of Dask is in it. It is a pickle: load only files that you trust.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Comparison.load(Comparison([]).save(f"{folder}/empty.scaleml")).verdict
        'Nothing was compared.'
        """
        return save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Return what `save` wrote.

        Raises
        ------
        ValueError
            For a file that is no comparison, or that is torn.
        """
        found = load(path)
        if not isinstance(found, cls):
            raise ValueError(
                f"{str(path)!r} holds {type(found).__name__}, no comparison: write one with Comparison.save(path)"
            )
        return found

    def __str__(self) -> str:
        from scaleml.telemetry.tables import plain

        if not self.runs:
            return str(self.verdict)
        head, cells, note = self.lines()
        return f"{self.verdict}\n\n{plain(head, cells)}\n{printable(note)}"

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.runs)} runs: {self.verdict.headline}>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from scaleml.telemetry.terminal import view

        yield view(self, options.max_width)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from scaleml.telemetry.bundle import bundle
        from scaleml.telemetry.report import fragment

        return bundle(str(self), fragment(self), self.plot if self.runs else None)


def _stage(run: RunLike) -> str:
    return "round" if run.place is None else run.place.stage


def _by_contender(runs: Sequence[RunLike]) -> list[RunLike]:
    """By comparison as they came, in it by contender as they were given, not as a round took them, and by round."""
    first: dict[str, int] = {}
    keys = []
    for position, run in enumerate(runs):
        place = run.place
        if place is None:
            keys.append((position, 0, 0))
        else:
            keys.append((first.setdefault(place.comparison, position), place.entry, place.round))
    return [runs[i] for i in sorted(range(len(runs)), key=lambda i: keys[i])]
