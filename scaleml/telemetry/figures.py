"""Final figures, as matplotlib `Figure`s: loss against time and samples, the ledger of every rank, throughput."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from scaleml.telemetry.bundle import data_uri
from scaleml.telemetry.curves import Curve, loss_curve, throughput_curve
from scaleml.telemetry.formatting import number
from scaleml.telemetry.ledger import PARTS, Ledger
from scaleml.telemetry.palette import DARK, HATCHES, LIGHT, Stroke, Theme, strokes
from scaleml.telemetry.palette import PARTS as PART_COLORS
from scaleml.telemetry.run_like import RunLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    from scaleml.telemetry.history import History

MOST_BARS = 24
MOST_LINES, MOST_NAMES = 60, 6


def runs_figure(runs: Sequence[RunLike], target: float | None = None, dark: bool = False) -> Figure:
    """Everything about some runs in one figure.

    Parameters
    ----------
    runs : sequence of Run
        One or more; only what presentation sees of them is used.
    target : float, optional
        Drawn as a line across the losses.
    dark : bool, default False
        For a dark page.

    Raises
    ------
    ImportError
        Without matplotlib, which comes with the extra `lab`.
    """
    theme = DARK if dark else LIGHT
    ledgers = [(title(run) if len(runs) > 1 else "", Ledger(run.history)) for run in runs]
    bars = _bars(ledgers)
    below = max(2.6, 0.8 + 0.2 * len(bars) + 0.25 * len(runs))
    legend = 0.24 * ((len(runs) + 1) // 2) + 0.15 if len(runs) > 1 else 0.0
    figure = _figure(10.0, 3.4 + below + legend, theme)
    grid = figure.add_gridspec(2, 2, height_ratios=[3.4, below])
    by_time = figure.add_subplot(grid[0, 0])
    by_samples = figure.add_subplot(grid[0, 1], sharey=by_time)
    drawn = strokes([bool(run.is_serial) for run in runs])
    curves = [loss_curve(run.history) for run in runs]
    _losses(by_time, by_samples, curves, drawn, target, theme)
    if len(runs) == 1:  # the throughput below says what they are
        _changes(by_time, runs[0].history.marks, theme)
    _ledger(figure.add_subplot(grid[1, 0]), bars, theme)
    _throughput(figure.add_subplot(grid[1, 1]), runs, drawn, theme)
    _parts_legend(figure, theme)
    if len(runs) > 1:
        handles = by_time.get_lines()[: len(runs)]
        labels = [shorten(title(run), 58) for run in runs]
        figure.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=2,
            frameon=False,
            labelcolor=theme.ink,
            handlelength=3.2,
            fontsize=9,
        )
    return figure


def loss_figure(histories: Sequence[tuple[str, History]], dark: bool = False) -> Figure:
    """Loss against time and against samples, side by side."""
    theme = DARK if dark else LIGHT
    figure = _figure(10.0, 3.4, theme)
    left, right = figure.subplots(1, 2, sharey=True)
    curves = [loss_curve(history) for _, history in histories]
    _losses(left, right, curves, strokes([False] * len(curves)), None, theme)
    return figure


def ledger_figure(ledgers: Sequence[tuple[str, Ledger]], dark: bool = False) -> Figure:
    """Where the time of every rank went, as stacked bars."""
    theme = DARK if dark else LIGHT
    bars = _bars(ledgers)
    figure = _figure(7.0, 1.2 + 0.24 * max(2, len(bars)), theme)
    _ledger(figure.subplots(), bars, theme)
    _parts_legend(figure, theme)
    return figure


def shorten(text: str, most: int) -> str:
    """Cut a long label in its middle, where parameters repeat least at the ends.

    >>> shorten("ParameterServer(consistency='ssp', staleness=4)", 30)
    'ParameterServer(co...leness=4)'
    """
    if len(text) <= most:
        return text
    tail = (most - 3) // 3
    return text[: most - 3 - tail] + "..." + text[-tail:]


def _figure(width: float, height: float, theme: Theme) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'Plots need matplotlib: install it with `pip install ".[lab]"` in a checkout of scaleml.'
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=theme.paper)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1, wspace=0.04, hspace=0.05)  # type: ignore[union-attr, call-arg]
    # IPython shows a bare Figure as text until pyplot has been imported, and after that as a PNG of four times the size.
    figure._ipython_display_ = partial(_display, figure)  # type: ignore[attr-defined]
    return figure


def _display(figure: Figure) -> None:
    from IPython.display import display

    display({"text/plain": repr(figure), "image/png": data_uri(figure).partition(",")[2]}, raw=True)


def _ticks() -> EngFormatter:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep=" ")


def _style(axes: Axes, title: str, x: str, y: str, theme: Theme) -> None:
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


def _losses(
    left: Axes, right: Axes, curves: Sequence[Curve], drawn: Sequence[Stroke], target: float | None, theme: Theme
) -> None:
    for axes, x in ((left, "time"), (right, "samples")):
        for curve, stroke in zip(curves, drawn, strict=True):
            mark = "o" if len(curve.loss) <= 40 else ""
            axes.plot(
                getattr(curve, x),
                curve.loss,
                color=stroke.color,
                dashes=stroke.dashes or (1, 0),
                lw=1.8,
                marker=mark,
                ms=3,
            )
        axes.set_xlim(left=0)
        if target is not None:
            axes.axhline(target, color=theme.ink, lw=1, ls=(0, (2, 3)))
            axes.annotate(
                f"target {number(target)}",
                (1, target),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=theme.ink,
            )
    kinds = {curve.kind for curve in curves if len(curve.loss)}
    name = "Held-out loss" if kinds == {"held-out"} else "Training loss" if kinds == {"training"} else "Loss"
    _style(left, f"{name} against time", "training time (s)", name.lower(), theme)
    _style(right, f"{name} against samples", "rows consumed by all workers", "", theme)
    right.tick_params(labelleft=False)
    right.xaxis.set_major_formatter(_ticks())
    _frame_losses(left, curves)


def _frame_losses(axes: Axes, curves: Sequence[Curve]) -> None:
    """Keep a run that diverges from flattening the others; use a logarithm where losses span decades."""
    losses = np.concatenate([curve.loss[np.isfinite(curve.loss)] for curve in curves]) if curves else np.empty(0)
    if not len(losses):
        return
    first = max(
        (float(curve.loss[np.isfinite(curve.loss)][0]) for curve in curves if np.isfinite(curve.loss).any()),
        default=1.0,
    )
    top = min(float(losses.max()), 1.3 * first) if losses.max() > 2 * first > 0 else float(losses.max())
    low = float(losses.min())
    if low > 0 and top > 30 * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, top * 1.3)
    elif top > low:
        axes.set_ylim(low - 0.06 * (top - low), top + 0.06 * (top - low))


Bar = tuple[str, str, dict[str, float], bool]  # group, tick, seconds by part, whether it is the first of its group


def _bars(ledgers: Sequence[tuple[str, Ledger]]) -> list[Bar]:
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


def _ledger(axes: Axes, bars: Sequence[Bar], theme: Theme) -> None:
    heads = any(group for group, *_ in bars)
    place = 0.0
    ticks: list[float] = []
    widest = max([sum(parts.values()) for *_, parts, _ in bars], default=1.0) or 1.0
    for group, _, parts, first in bars:
        if first and heads:
            place += 0.45 if ticks else 0.0
            axes.text(0, place, shorten(group, 48), va="center", ha="left", fontsize=8.5, color=theme.ink)
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
    _style(axes, "Where each rank's time went", "seconds", "", theme)
    axes.set_yticks(ticks, [tick for _, tick, _, _ in bars])
    axes.set_ylim(max(place, 1.0) - 0.4, -0.6)
    axes.set_xlim(0, widest * 1.02)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def _parts_legend(figure: Figure, theme: Theme) -> None:
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


def _throughput(axes: Axes, runs: Sequence[RunLike], drawn: Sequence[Stroke], theme: Theme) -> None:
    fastest = 0.0
    for run, stroke in zip(runs, drawn, strict=True):
        time, rate = throughput_curve(run.history)
        axes.plot(time, rate, color=stroke.color, dashes=stroke.dashes or (1, 0), lw=1.6)
        fastest = max(fastest, float(rate.max(initial=0.0)))
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.12 * fastest or 1.0)
    _style(axes, "Throughput", "training time (s)", "rows a second", theme)
    axes.yaxis.set_major_formatter(_ticks())
    for when, text in _changes(axes, runs[0].history.marks, theme) if len(runs) == 1 else []:
        axes.annotate(
            shorten(text, 30),
            (when, 0.02),
            xycoords=("data", "axes fraction"),
            rotation=90,
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=7.5,
            color=theme.ink,
        )


def _changes(axes: Axes, marks: Sequence[tuple[float, str]], theme: Theme) -> Sequence[tuple[float, str]]:
    """Draw a line where something changed in mid-run; return those of the changes that there is room to name."""
    for when, _ in marks[:MOST_LINES]:
        axes.axvline(when, color=theme.ink, lw=0.8, ls=(0, (2, 3)))
    return marks[:MOST_NAMES]


def title(run: RunLike) -> str:
    """The label, and what the label does not say about where it ran."""
    where = (
        f"{run.threads} thread{'s' * (run.threads != 1)}"
        if run.is_serial
        else f"{run.workers} worker{'s' * (run.workers != 1)}"
    )
    return f"{run.label}, {where}" + (f" ({run.state})" if run.state != "finished" else "")
