"""Terminal output of runs, tables and verdicts: live where there is one, plain lines where there is not."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, final

from scaleml.checks import check_number
from scaleml.telemetry.comparison_like import ComparisonLike
from scaleml.telemetry.formatting import count, number, percent, seconds
from scaleml.telemetry.gauge import Gauge, Reading
from scaleml.telemetry.ledger_bars import shorten
from scaleml.telemetry.palette import PARTS as COLORS
from scaleml.telemetry.run_like import RunLike

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text


SPLIT = ("compute", "wait", "comm")
NAME = {False: 22, True: 32}  # characters for the strategy in a narrow and in a wide terminal
# What a narrow terminal does without, first to last.
SPARE = (
    "rate", "rows/update", "cold", "score", "staleness", "bytes/step", "threads", "comm", "compute", "wait", "efficiency", "loss",
    "time", "samples/s", "rounds", "workers",
)  # fmt: skip


@final
class LiveRuns:
    """One line a run while they run: progress, samples a second, losses, where the time goes, who is slow.

    Nothing is asked of the runs; their histories are read a few times a second. Without a terminal (a log file, a pipe,
    a notebook) one plain line a run is printed every few seconds, and one at its end.

    Parameters
    ----------
    runs : iterable of Run, optional
        More can be added later.
    console : rich.console.Console, optional
        By default one on standard error.
    every : float, optional
        Seconds between two looks: by default 0.25 in a terminal, 5 without.

    Examples
    --------
    >>> from scaleml.telemetry.terminal import LiveRuns
    >>> with LiveRuns() as live:    # doctest: +SKIP
    ...     live.add(run, total=5 * len(X))
    ...     run.wait()
    """

    def __init__(
        self, runs: Iterable[RunLike] = (), *, console: Console | None = None, every: float | None = None
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        if every is not None:
            rule = "a positive number, the seconds between two looks, or None"
            check_number("every", every, 0, open_low=True, rule=rule)
        self.console = Console(stderr=True) if console is None else console
        self.live = self.console.is_terminal and not self.console.is_dumb_terminal and not self.console.is_jupyter
        self._every = every if every is not None else 0.25 if self.live else 5.0
        self._lock = threading.RLock()
        self._lines: list[tuple[Gauge, float | None]] = []
        self._printed: dict[int, str] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._screen = Live(console=self.console, auto_refresh=False, transient=False) if self.live else None
        for run in runs:
            self.add(run)

    def add(self, run: RunLike, total: float | None = None) -> None:
        """Show one more run; `total` is the rows that it will have consumed at its end, if that is known."""
        total = run.total_samples if total is None else total
        with self._lock:
            self._lines.append((Gauge(run), None if total is None else float(total)))

    def refresh(self) -> None:
        """Look at every run now, and show it."""
        with self._lock:
            if self._screen is not None:
                self._screen.update(self.render(), refresh=True)
                return
            for i, (gauge, total) in enumerate(self._lines):
                line = plain_line(gauge.run, gauge.read(), total)
                if self._printed.get(i) != line:
                    self._printed[i] = line
                    self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def render(self) -> Table:
        """The lines as a rich table that fits the console, always one line a run."""
        from rich.table import Table
        from rich.text import Text

        wide = self.console.width >= 132
        names = SPLIT if wide else tuple("cwm")
        split = Text("/").join(Text(name, COLORS[part]) for part, name in zip(SPLIT, names, strict=True))
        heads: list[str | Text] = ["run", *([""] if wide else []), "samples", "per s", "loss", "held-out", split, ""]
        widths = [NAME[wide], *([14] if wide else []), 11, 6, 6, 8, len(split) if wide else 8]
        gap = 2 if wide else 1
        widths.append(max(8, self.console.width - sum(widths) - gap * len(widths)))
        grid = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
        for head, width in zip(heads, widths, strict=True):
            is_number = head in ("samples", "per s", "loss", "held-out")
            grid.add_column(
                head, justify="right" if is_number else "left", no_wrap=True, width=width, overflow="ellipsis"
            )
        with self._lock:
            for gauge, total in self._lines:
                grid.add_row(*_cells(gauge.run, gauge.read(), total, wide))
        return grid

    def __enter__(self) -> LiveRuns:
        if self._screen is not None:
            self._screen.start()
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, name="scaleml-live", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._thread is not None
        self._stop.set()
        self._thread.join()
        self._thread = None
        self.refresh()
        if self._screen is not None:
            self._screen.stop()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self.refresh()


def plain_line(run: RunLike, now: Reading, total: float | None = None) -> str:
    """One look at a run as one line of plain text."""
    if now.state == "failed":
        return f"{_name(run)}: failed: {run.error or 'no error was recorded'}"
    parts = [now.state if not now.over else f"{now.state} after {seconds(now.time)}"]
    if now.samples:
        parts.append(_samples(now, total))
    if math.isfinite(now.samples_per_s):
        parts.append(f"{count(now.samples_per_s)} samples/s")
    if math.isfinite(now.loss):
        parts.append(f"loss {number(now.loss)}")
    if math.isfinite(now.held_out):
        parts.append(f"held-out loss {number(now.held_out)}")
    if math.isfinite(now.shares["compute"]):
        parts.append("/".join(SPLIT) + " " + "/".join(percent(now.shares[part]) for part in SPLIT))
    if now.staleness >= 0.05:
        parts.append(f"staleness {now.staleness:.1f}")
    if now.slow is not None:
        parts.append(f"rank {now.slow} holds up the others")
    return f"{_name(run)}: {', '.join(parts)}"


def view(comparison: ComparisonLike, width: int = 120) -> RenderableType:
    """The verdict and the table for a rich console, with as many columns as fit in `width`."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    verdict = comparison.verdict
    parts: list[RenderableType] = [Text(verdict.headline, style="bold")]
    bullets = Table.grid(padding=(0, 1))
    for reason in verdict.reasons:
        bullets.add_row(" •", Text(reason))
    parts += [bullets] if verdict.reasons else []
    if comparison.runs:
        head, cells, _ = comparison.lines()
        shown = _fitting(head, cells, width)
        note = comparison.footnote([head[i] for i in shown])
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for i in shown:
            table.add_column(head[i], justify="right" if i else "left", no_wrap=bool(i), overflow="fold")
        for n, row in enumerate(cells):
            table.add_row(*(Text(row[i]) for i in shown), style="bold" if n == verdict.best else "")
        parts += [table, Text(note, style="dim")]
    return Group(*parts)


def _fitting(head: tuple[str, ...], cells: list[tuple[str, ...]], width: int) -> list[int]:
    widths = [max(len(row[i]) for row in (head, *cells)) + 3 for i in range(len(head))]
    widths[0] = min(widths[0], max(24, width // 3))
    shown = list(range(len(head)))
    for name in SPARE:
        if sum(widths[i] for i in shown) > width:
            shown.remove(head.index(name))
    return shown


def _name(run: RunLike) -> str:
    if run.is_serial:
        return f"{run.label} with {run.threads} threads" if run.threads != 1 else str(run.label)
    return f"{run.label} on {run.workers} worker{'s' * (run.workers != 1)}"


def _samples(now: Reading, total: float | None) -> str:
    return f"{count(now.samples)} samples" if total is None else f"{count(now.samples)} of {count(total)} samples"


def _cells(run: RunLike, now: Reading, total: float | None, wide: bool) -> list[RenderableType]:
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    tail = f" x{run.threads} threads" * (run.threads > 1) if run.is_serial else f" x{run.workers}"
    cells: list[RenderableType] = [Text(shorten(str(run.label), NAME[wide] - len(tail)) + tail, style="bold")]
    if wide:
        known = total is not None and total > 0
        done = now.samples if known else float(now.state == "finished")
        cells.append(ProgressBar(total=total if known else 1.0, completed=done, width=14))
    cells.append(Text(_samples(now, total).removesuffix(" samples").replace(" of ", "/").replace(" ", "")))
    cells.append(Text(count(now.samples_per_s).replace(" ", "")))
    cells += [Text("-" if math.isnan(loss) else f"{loss:.3g}") for loss in (now.loss, now.held_out)]
    shares = (percent(now.shares[part]).removesuffix("%") for part in SPLIT)
    cells.append(Text("/").join(Text(share, COLORS[part]) for part, share in zip(SPLIT, shares, strict=True)))
    return [*cells, _remark(run, now)]


def _remark(run: RunLike, now: Reading) -> Text:
    """What stands out, the most urgent first: a narrow terminal shows only that."""
    from rich.text import Text

    if now.state == "failed":
        return Text(f"failed: {run.error or 'no error was recorded'}".replace("\n", " "), style="red")
    remarks = []
    if now.slow is not None and not now.over:
        remarks.append(Text(f"rank {now.slow} is slow", style="yellow"))
    if now.staleness >= 0.05:
        remarks.append(Text(f"{now.staleness:.1f} stale", style="dim"))
    style = {"finished": "green", "paused": "yellow"}.get(now.state, "")
    return Text(", ").join([*remarks, Text(now.state, style=style)])
