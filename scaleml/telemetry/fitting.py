"""Display of one fit as it runs: a compact live view in a notebook, a line in a terminal, a line an epoch anywhere else."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import numpy as np

from scaleml.clock import WALL, Clock
from scaleml.escaping import escape, printable
from scaleml.telemetry import screen
from scaleml.telemetry.formatting import count, number, seconds
from scaleml.telemetry.gauge import Gauge
from scaleml.telemetry.palette import LINES
from scaleml.telemetry.run_like import RunLike

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY: Final = 0.1
"""Seconds between two updates at least."""
_POINTS: Final = 120
_WIDTH, _HEIGHT = 160, 28


@final
@dataclass
class FitProgress:
    """How far a fit is.

    Parameters
    ----------
    name : str
        Of the estimator.
    epochs : int
        The most there may be.
    done : int
        Epochs that are over.
    losses, scores : list of float
        One an epoch, or of the last one only; scores are of the held-out rows.
    where : str
        On what it trains, in words.
    state : str
        ``"training"`` at first.
    rate : float
        Rows a second; NaN while it is not known.
    clock : Clock
        What tells how long it takes.
    """

    name: str
    epochs: int
    done: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    where: str = "in this process"
    state: str = "training"
    rate: float = float("nan")
    clock: Clock = WALL

    def __post_init__(self) -> None:
        self.began = self.clock.now()

    def facts(self) -> list[str]:
        """Return how it stands, in a few words each."""
        facts = [f"epoch {self.done} of {self.epochs}"]
        if self.losses:
            facts.append(f"loss {number(self.losses[-1])}")
        if self.scores:
            facts.append(f"validation {self.scores[-1]:.4f}")
        if np.isfinite(self.rate):
            facts.append(f"{count(self.rate)} rows/s")
        return [*facts, seconds(self.clock.now() - self.began)]

    def text(self) -> str:
        """Return one line."""
        return printable(f"{self.name}: {self.state} {self.where}: {', '.join(self.facts())}")

    def html(self) -> str:
        """Return the same with a bar and the curve of the losses: inline styles and no script, so that it stays as it is."""
        share = 100.0 if self.state == "finished" else 100.0 * self.done / max(1, self.epochs)
        color = LINES[1] if self.state == "failed" else LINES[0]
        bar = (
            '<span style="display:inline-block;width:8em;height:.55em;background:rgba(127,127,127,.25);border-radius:3px">'
            f'<span style="display:block;width:{share:.1f}%;height:100%;background:{color};border-radius:3px"></span></span>'
        )
        words = f"<strong>{escape(self.name)}</strong> {escape(self.state)} {escape(self.where)}"
        facts = escape(" · ".join(self.facts()))
        return (
            '<div role="group" style="display:flex;flex-wrap:wrap;gap:.3em 1em;align-items:center;font-size:.9em;'
            f'font-variant-numeric:tabular-nums"><span>{words}</span>{bar}<span>{facts}</span>{_curve(self.losses)}</div>'
        )


class View(Protocol):
    """Shows progress somewhere."""

    def show(self, progress: FitProgress) -> None:
        """Show it as it is now."""

    def close(self, progress: FitProgress) -> None:
        """Show it for the last time."""


@final
class Fitting:
    """Shows a fit while it runs; a context manager.

    Where it shows is decided by where it is: in a notebook one display that is updated, and that stays in the saved file; in a
    terminal one line; anywhere else, and in threads and processes of a search, a plain line an epoch.

    Parameters
    ----------
    name : str
        Of the estimator.
    epochs : int
        The most there may be.
    verbose : int
        Above 1: a plain line an epoch everywhere.
    clock : Clock
        What tells when to update.
    """

    def __init__(self, name: str, epochs: int, verbose: int = 1, clock: Clock = WALL) -> None:
        self.progress = FitProgress(name, epochs, clock=clock)
        self._view = view(verbose)
        self._shown = 0.0
        self._gauge: Gauge | None = None

    def on_epoch(self, loss: float, score: float = math.nan, number: int | None = None) -> None:
        """Note an epoch that is over, the next one or this one; score is NaN without held-out rows."""
        self.progress.done = self.progress.done + 1 if number is None else number
        self.progress.losses.append(loss)
        if np.isfinite(score):
            self.progress.scores.append(score)
        if isinstance(self._view, Lines):
            self._view.show(self.progress)
        else:
            self._refresh()

    def on_look(self, run: RunLike) -> None:
        """Look at a cluster's run."""
        if self._gauge is None:
            self._gauge = Gauge(run)
            self.progress.where = f"on {run.workers} worker{'s' * (run.workers != 1)}"
        if not isinstance(self._view, Lines):
            self.progress.rate = self._gauge.read().samples_per_s
            self._refresh()

    def _refresh(self) -> None:
        now = self.progress.clock.now()
        if now - self._shown >= EVERY:
            self._shown = now
            self._view.show(self.progress)

    def __enter__(self) -> Fitting:
        if not isinstance(self._view, Lines):
            self._refresh()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        ended = {None: "finished", KeyboardInterrupt: "interrupted"}
        self.progress.state = ended.get(kind, "failed")  # type: ignore[arg-type]
        self._view.close(self.progress)


@final
class Lines:
    """A line an epoch on standard output, as scikit-learn's ``verbose`` prints."""

    def show(self, progress: FitProgress) -> None:
        """Print the newest epoch."""
        score = f", validation score = {progress.scores[-1]:.6f}" if progress.scores else ""
        sys.stdout.write(
            f"{printable(progress.name)}, epoch {progress.done}, loss = {progress.losses[-1]:.8f}{score}\n"
        )

    def close(self, progress: FitProgress) -> None:
        """Print nothing more."""
        sys.stdout.flush()


@final
class Notebook:
    """One display of a notebook, updated.

    Parameters
    ----------
    display : callable
        IPython's ``display``.
    """

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handle: Any = None

    def show(self, progress: FitProgress) -> None:
        """Show it, or update what is shown."""
        bundle = {"text/plain": progress.text(), "text/html": progress.html()}
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def close(self, progress: FitProgress) -> None:
        """Leave it as it ended."""
        self.show(progress)


@final
class Terminal:
    """One line of a terminal, updated."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), auto_refresh=False)

    def show(self, progress: FitProgress) -> None:
        """Show it."""
        if not self._live.is_started:
            self._live.start()
        self._live.update(_line(progress), refresh=True)

    def close(self, progress: FitProgress) -> None:
        """Leave it as it ended."""
        self.show(progress)
        self._live.stop()


def view(verbose: int) -> View:
    """Return where a fit is to be shown."""
    where = "none" if verbose > 1 or not screen.alone() else screen.place(sys.stdout)
    if where == "notebook":
        return Notebook(screen.display())
    return Terminal() if where == "terminal" else Lines()


def _line(progress: FitProgress) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    for _ in range(3):
        grid.add_column(no_wrap=True, overflow="ellipsis")
    done = progress.epochs if progress.state == "finished" else progress.done
    words = Text(printable(progress.name), "bold") + Text(f" {progress.state} {progress.where}")
    grid.add_row(words, ProgressBar(total=progress.epochs, completed=done, width=14), Text(", ".join(progress.facts())))
    return grid


def _curve(losses: list[float]) -> str:
    """The losses as a small line; nothing for fewer than two."""
    known = np.array([loss for loss in losses if np.isfinite(loss)])
    if len(known) < 2:
        return ""
    picked = known[np.unique(np.linspace(0, len(known) - 1, _POINTS).round().astype(int))]
    spread = float(np.ptp(picked)) or 1.0
    x = np.linspace(1, _WIDTH - 1, len(picked))
    y = 1 + (_HEIGHT - 2) * (picked.max() - picked) / spread
    points = " ".join(f"{a:.0f},{b:.1f}" for a, b in zip(x, y, strict=True))
    label = f"training loss from {number(float(known[0]))} to {number(float(known[-1]))}"
    return (
        f'<svg role="img" aria-label="{escape(label)}" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<polyline points="{points}" fill="none" stroke="{LINES[0]}" stroke-width="1.5"/></svg>'
    )
