"""Final figures, as matplotlib `Figure`s: loss against time and samples, the ledger of every rank, throughput."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from scaleml.escaping import picture
from scaleml.telemetry.bundle import data_uri
from scaleml.telemetry.comparison_like import ComparisonLike
from scaleml.telemetry.curves import Curve, loss_curve, median_curve, throughput_curve
from scaleml.telemetry.formatting import number
from scaleml.telemetry.ledger import Ledger
from scaleml.telemetry.ledger_bars import bars_of, draw_ledger, parts_legend, shorten, style
from scaleml.telemetry.palette import DARK, LIGHT, Stroke, Theme, strokes
from scaleml.telemetry.run_like import RunLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    from scaleml.telemetry.history import History


MOST_LINES, MOST_NAMES = 60, 6
FRONT = 3.0


def comparison_figure(comparison: ComparisonLike, dark: bool = False) -> Figure:
    """A comparison in one figure: of each contender the median curve before those of its rounds, and its run of median time."""
    series = comparison.series
    runs = [comparison.runs[one.middle] for one in series]
    return runs_figure(runs, comparison.target, dark, [[comparison.runs[i] for i in one.positions] for one in series])


def runs_figure(
    runs: Sequence[RunLike],
    target: float | None = None,
    dark: bool = False,
    rounds: Sequence[Sequence[RunLike]] | None = None,
) -> Figure:
    """Everything about some runs in one figure.

    Parameters
    ----------
    runs : sequence of Run
        One or more; only what presentation sees of them is used.
    target : float, optional
        Drawn as a line across the losses.
    dark : bool, default False
        For a dark page.
    rounds : sequence of sequences of Run, optional
        For each of the runs all that it stands for: their losses are drawn thin behind their median.

    Raises
    ------
    ImportError
        Without matplotlib, which comes with the extra `lab`.
    """
    theme = DARK if dark else LIGHT
    ledgers = [(title(run) if len(runs) > 1 else "", Ledger(run.history)) for run in runs]
    bars = bars_of(ledgers)
    below = max(2.6, 0.8 + 0.2 * len(bars) + 0.25 * len(runs))
    legend = 0.24 * ((len(runs) + 1) // 2) + 0.15 if len(runs) > 1 else 0.0
    figure = _figure(10.0, 3.4 + below + legend, theme)
    grid = figure.add_gridspec(2, 2, height_ratios=[3.4, below])
    by_time = figure.add_subplot(grid[0, 0])
    by_samples = figure.add_subplot(grid[0, 1], sharey=by_time)
    drawn = strokes([run.label for run in runs], [run.first_label for run in runs])
    behind = [[loss_curve(run.history) for run in every] for every in rounds or [[run] for run in runs]]
    for axes, x in ((by_time, "time"), (by_samples, "samples")):
        _rounds(axes, x, behind, drawn)
    _losses(by_time, by_samples, [median_curve(every) for every in behind], drawn, target, theme)
    if len(runs) == 1:  # the throughput below says what they are
        _changes(by_time, runs[0].history.marks, theme)
    draw_ledger(figure.add_subplot(grid[1, 0]), bars, theme)
    _throughput(figure.add_subplot(grid[1, 1]), runs, drawn, theme)
    parts_legend(figure, theme)
    if len(runs) > 1:
        handles = [line for line in by_time.get_lines() if line.get_zorder() == FRONT][: len(runs)]
        labels = [picture(shorten(title(run), 58)) for run in runs]
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
    _losses(left, right, curves, strokes([label for label, _ in histories]), None, theme)
    return figure


def ledger_figure(ledgers: Sequence[tuple[str, Ledger]], dark: bool = False) -> Figure:
    """Where the time of every rank went, as stacked bars."""
    theme = DARK if dark else LIGHT
    bars = bars_of(ledgers)
    figure = _figure(7.0, 1.2 + 0.24 * max(2, len(bars)), theme)
    draw_ledger(figure.subplots(), bars, theme)
    parts_legend(figure, theme)
    return figure


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


def _rounds(axes: Axes, x: str, behind: Sequence[Sequence[Curve]], drawn: Sequence[Stroke]) -> None:
    for curves, stroke in zip(behind, drawn, strict=True):
        for curve in curves if len(curves) > 1 else []:
            axes.plot(getattr(curve, x), curve.loss, color=stroke.color, lw=0.7, alpha=0.35)


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
                zorder=FRONT,
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
    style(left, f"{name} against time", "training time (s)", name.lower(), theme)
    style(right, f"{name} against samples", "rows consumed by all workers", "", theme)
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


def _throughput(axes: Axes, runs: Sequence[RunLike], drawn: Sequence[Stroke], theme: Theme) -> None:
    fastest = 0.0
    for run, stroke in zip(runs, drawn, strict=True):
        time, rate = throughput_curve(run.history)
        axes.plot(time, rate, color=stroke.color, dashes=stroke.dashes or (1, 0), lw=1.6)
        fastest = max(fastest, float(rate.max(initial=0.0)))
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.12 * fastest or 1.0)
    style(axes, "Throughput", "training time (s)", "rows a second", theme)
    axes.yaxis.set_major_formatter(_ticks())
    for when, text in _changes(axes, runs[0].history.marks, theme) if len(runs) == 1 else []:
        axes.annotate(
            picture(shorten(text, 30)),
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
