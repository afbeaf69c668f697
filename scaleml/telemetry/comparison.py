"""Comparison: runs side by side, in one table, one verdict, one picture."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from scaleml.checks import check_number
from scaleml.telemetry.formatting import count, factor, number, percent, seconds, size
from scaleml.telemetry.run_like import RunLike
from scaleml.telemetry.summary import Summary, summarise
from scaleml.telemetry.verdict import Verdict, judge

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions, RenderableType

HEAD = (
    "strategy", "workers", "threads", "loss", "score", "time", "to target", "samples/s", "speed-up", "efficiency",
    "compute", "wait", "comm", "bytes/step", "staleness", "cold",
)  # fmt: skip


@final
class Comparison:
    """Runs of one model on one data set under several strategies.

    Speed-up is the serial baseline's time to the target over a run's own; efficiency is that divided by its workers.
    The baseline is the better of the serial runs: one thread, or one process with all the cores of one host. Where the
    target was not reached, the ratio of samples a second stands instead, marked with a star.

    Parameters
    ----------
    runs : iterable of Run
        Finished, failed or still running.
    target : float, optional
        The held-out loss to be reached. By default the loss that every finished run reached.
    ended : str, optional
        Why runs are missing that were asked for; the verdict says so.

    Attributes
    ----------
    runs : tuple of Run
    ended : str or None

    Examples
    --------
    >>> Comparison([]).verdict
    'Nothing was compared.'
    """

    def __init__(self, runs: Iterable[RunLike], target: float | None = None, ended: str | None = None) -> None:
        rule = "a finite number, the held-out loss to be reached, or None to have one computed"
        self._target = None if target is None else check_number("target", target, rule=rule)
        self.runs = tuple(runs)
        self.ended = ended

    @property
    def target(self) -> float | None:
        """The loss to be reached: the one given, else the one that every finished run reached, or None."""
        return summarise(self.runs, self._target)[1]

    @property
    def rows(self) -> list[Summary]:
        """One summary a run, with speed-ups."""
        return summarise(self.runs, self._target)[0]

    @property
    def verdict(self) -> Verdict:
        """Which strategy to use and why, or that none is worth it.

        A string; its `headline`, its `reasons` and `best`, the index of the recommended run, also stand alone.
        """
        found = judge(*summarise(self.runs, self._target), computed=self._target is None)
        return found if self.ended is None else Verdict(found.headline, (*found.reasons, self.ended), found.best)

    @property
    def best(self) -> RunLike | None:
        """The run that the verdict recommends, or None."""
        at = self.verdict.best
        return None if at is None else self.runs[at]

    def table(self) -> pd.DataFrame:
        """The numbers as a pandas frame, one row a run.

        Returns
        -------
        pandas.DataFrame
            strategy, workers, threads; loss and score (held-out, at the end; of the training data if nothing was held
            out); time_s, time_to_target_s, cold_s (time_s and placing the data and starting); samples_per_s,
            samples_to_target; speedup, efficiency and speedup_by; compute, wait and comm (shares of the ranks' time,
            the rest is applying updates and other); bytes_per_step; staleness; state. `attrs["target"]` is the target.
        """
        import pandas as pd

        rows, target = summarise(self.runs, self._target)
        frame = pd.DataFrame(
            {
                "strategy": [row.strategy for row in rows],
                "workers": [row.workers for row in rows],
                "threads": [row.threads for row in rows],
                "loss": [row.loss for row in rows],
                "score": [row.score for row in rows],
                "time_s": [row.time for row in rows],
                "time_to_target_s": [row.time_to_target for row in rows],
                "samples_per_s": [row.samples_per_s for row in rows],
                "speedup": [row.speedup for row in rows],
                "efficiency": [row.efficiency for row in rows],
                "compute": [row.compute for row in rows],
                "wait": [row.wait for row in rows],
                "comm": [row.comm for row in rows],
                "bytes_per_step": [row.bytes_per_step for row in rows],
                "staleness": [row.staleness for row in rows],
                "cold_s": [row.cold for row in rows],
                "samples_to_target": [row.samples_to_target for row in rows],
                "speedup_by": [row.speedup_by for row in rows],
                "state": [row.state for row in rows],
            }
        )
        frame.attrs["target"] = target
        return frame

    def lines(self) -> tuple[tuple[str, ...], list[tuple[str, ...]], str]:
        """The table as people read it: headings, cells for each run, and a footnote."""
        rows, target = summarise(self.runs, self._target)
        cells: list[tuple[str, ...]] = [
            (
                row.strategy,
                str(row.workers),
                str(row.threads),
                number(row.loss),
                number(row.score),
                row.state if row.failed else seconds(row.time),
                seconds(row.time_to_target),
                count(row.samples_per_s),
                _speedup(row),
                percent(row.efficiency),
                percent(row.compute),
                percent(row.wait),
                percent(row.comm),
                size(row.bytes_per_step),
                f"{row.staleness:.1f}",
                seconds(row.cold),
            )
            for row in rows
        ]
        return HEAD, cells, self._footnote(rows, target, HEAD)

    def footnote(self, shown: Collection[str]) -> str:
        """Return the footnote of a table with only the columns `shown`."""
        return self._footnote(*summarise(self.runs, self._target), shown)

    def _footnote(self, rows: list[Summary], target: float | None, shown: Collection[str]) -> str:
        kinds = {row.kind for row in rows if np.isfinite(row.loss)}
        parts = []
        if "loss" in shown:
            parts.append(f"{kinds.pop().capitalize()} loss at the end." if len(kinds) == 1 else "Loss at the end.")
        if target is not None:
            parts.append(
                f"Target: a loss of {number(target)}"
                + ("." if self._target is not None else ", which every finished run that learnt reached.")
            )
        if any(row.speedup_by == "samples/s" for row in rows):
            parts.append("* samples a second against the baseline's: no time to the target to compare.")
        if any(row.crowded and row.speedup_by for row in rows):
            parts.append("In brackets: more workers than cores, so these mean nothing.")
        if "cold" in shown:
            parts.append("Cold: with placing the data and starting.")
        return " ".join(parts)

    def plot(self) -> Figure:
        """Held-out loss against time and samples, the ledger of every rank, and throughput: a matplotlib Figure."""
        from scaleml.telemetry.figures import runs_figure

        return runs_figure(self.runs, self.target)

    def to_html(self, path: str | Path) -> Path:
        """Write all of it to one HTML file that needs nothing else, and return its path."""
        from scaleml.telemetry.report import write

        return write({"": self}, path)

    def __str__(self) -> str:
        from scaleml.telemetry.tables import plain

        if not self.runs:
            return str(self.verdict)
        head, cells, note = self.lines()
        return f"{self.verdict}\n\n{plain(head, cells)}\n{note}"

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.runs)} runs: {self.verdict.headline}>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from scaleml.telemetry.terminal import view

        yield view(self, options.max_width)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from scaleml.telemetry.bundle import bundle
        from scaleml.telemetry.report import fragment

        return bundle(str(self), fragment(self), self.plot if self.runs else None)


def _speedup(row: Summary) -> str:
    text = factor(row.speedup) + "*" * (row.speedup_by == "samples/s")
    return f"({text})" if row.crowded and row.speedup_by else text
