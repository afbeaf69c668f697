"""Terminal output: one look at a run as a line, a comparison with as many columns as fit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scaleml.escaping import printable
from scaleml.telemetry.comparison_like import ComparisonLike
from scaleml.telemetry.formatting import count, number, percent, seconds
from scaleml.telemetry.gauge import Reading
from scaleml.telemetry.run_like import RunLike

if TYPE_CHECKING:
    from rich.console import RenderableType


SPLIT = ("compute", "wait", "comm")
# What a narrow terminal does without, first to last.
SPARE = (
    "rate", "rows/update", "cold", "score", "staleness", "bytes/step", "threads", "comm", "compute", "wait", "efficiency", "loss",
    "time", "samples/s", "rounds", "workers",
)  # fmt: skip


def plain_line(run: RunLike, now: Reading, total: float | None = None) -> str:
    """One look at a run as one line of plain text."""
    if now.state == "failed":
        return printable(f"{_name(run)}: failed: {run.error or 'no error was recorded'}")
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
    return printable(f"{_name(run)}: {', '.join(parts)}")


def view(comparison: ComparisonLike, width: int = 120) -> RenderableType:
    """The verdict and the table for a rich console, with as many columns as fit in `width`."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    verdict = comparison.verdict
    parts: list[RenderableType] = [Text(printable(verdict.headline), style="bold")]
    bullets = Table.grid(padding=(0, 1))
    for reason in verdict.reasons:
        bullets.add_row(" •", Text(printable(reason)))
    parts += [bullets] if verdict.reasons else []
    if comparison.runs:
        head, cells, _ = comparison.lines()
        shown = _fitting(head, cells, width)
        note = comparison.footnote([head[i] for i in shown])
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for i in shown:
            table.add_column(
                Text(printable(head[i])), justify="right" if i else "left", no_wrap=bool(i), overflow="fold"
            )
        for n, row in enumerate(cells):
            table.add_row(*(Text(printable(row[i])) for i in shown), style="bold" if n == verdict.best else "")
        parts += [table, Text(printable(note), style="dim")]
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
