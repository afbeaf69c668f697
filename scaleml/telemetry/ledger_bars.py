"""Ledger bars: where the time of every rank went, drawn; and what all figures have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scaleml.escaping import picture
from scaleml.telemetry.ledger import PARTS, Ledger
from scaleml.telemetry.palette import HATCHES, Theme
from scaleml.telemetry.palette import PARTS as PART_COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 24
Bar = tuple[str, str, dict[str, float], bool]  # group, tick, seconds by part, whether it is the first of its group


def bars_of(ledgers: Sequence[tuple[str, Ledger]]) -> list[Bar]:
    """One bar a rank; one a run where that would be too many."""
    many = sum(len(ledger.ranks) for _, ledger in ledgers) > MOST_BARS
    bars: list[Bar] = []
    for label, ledger in ledgers:
        if many:
            mean = {part: float(getattr(ledger, part).mean()) for part in PARTS} if len(ledger.ranks) else {}
            bars.append(
                (label, ledger.name(0) if len(ledger.ranks) == 1 else f"mean of {len(ledger.ranks)}", mean, True)
            )
            continue
        spent = [{part: float(getattr(ledger, part)[i]) for part in PARTS} for i in range(len(ledger.ranks))]
        bars += [(label, ledger.name(i), parts, i == 0) for i, parts in enumerate(spent)]
    return bars


def draw_ledger(axes: Axes, bars: Sequence[Bar], theme: Theme) -> None:
    """Draw the bars below each other, each group under its name."""
    heads = any(group for group, *_ in bars)
    place = 0.0
    ticks: list[float] = []
    widest = max([sum(parts.values()) for *_, parts, _ in bars], default=1.0) or 1.0
    for group, _, parts, first in bars:
        if first and heads:
            place += 0.45 if ticks else 0.0
            axes.text(0, place, picture(shorten(group, 48)), va="center", ha="left", fontsize=8.5, color=theme.ink)
            place += 0.95
        start = 0.0
        for part in PARTS:
            width = parts.get(part, 0.0)
            axes.barh(
                place,
                width,
                left=start,
                height=0.72,
                color=PART_COLORS[part],
                hatch=HATCHES[part],
                edgecolor=theme.paper,
                linewidth=0.4,
            )
            start += width
        ticks.append(place)
        place += 1.0
    style(axes, "Where each rank's time went", "seconds", "", theme)
    axes.set_yticks(ticks, [tick for _, tick, _, _ in bars])
    axes.set_ylim(max(place, 1.0) - 0.4, -0.6)
    axes.set_xlim(0, widest * 1.02)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def parts_legend(figure: Figure, theme: Theme) -> None:
    """Say which part of the time has which colour."""
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=PART_COLORS[part], hatch=HATCHES[part], edgecolor=theme.paper, label=part) for part in PARTS
    ]
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=len(PARTS),
        frameon=False,
        labelcolor=theme.ink,
        fontsize=8.5,
        columnspacing=1.4,
        handlelength=1.4,
    )


def style(axes: Axes, title: str, x: str, y: str, theme: Theme) -> None:
    """Give axes their title, names and colours."""
    axes.set_facecolor(theme.paper)
    axes.set_title(title, loc="left", fontsize=10.5, color=theme.ink, fontweight="bold")
    axes.set_xlabel(x, color=theme.ink, fontsize=9)
    axes.set_ylabel(y, color=theme.ink, fontsize=9)
    axes.tick_params(colors=theme.ink, labelsize=8.5, length=3)
    axes.grid(True, color=theme.faint, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.faint)


def shorten(text: str, most: int) -> str:
    """Cut a long label in its middle, where parameters repeat least at the ends.

    >>> shorten("ParameterServer(consistency='ssp', staleness=4)", 30)
    'ParameterServer(co...leness=4)'
    """
    if len(text) <= most:
        return text
    tail = (most - 3) // 3
    return text[: most - 3 - tail] + "..." + text[-tail:]
