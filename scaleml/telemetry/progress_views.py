"""Views of progress: one display of a notebook, some lines of a terminal, or a plain line a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO, final

from scaleml.escaping import escape, printable
from scaleml.telemetry.formatting import percent

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

OVER: Final = ("finished", "stopped", "failed")
FAILED: Final = "#D55E00"


@final
@dataclass(frozen=True)
class Lane:
    """One line: all runs of one label.

    Parameters
    ----------
    label, color : str
    share : float
        0 to 1, of all its runs.
    facts, where : str
        How the newest run does, and on what.
    state : str
        Of the newest run; empty before the first.
    error : str, optional
        Why that failed.
    """

    label: str
    color: str
    share: float
    facts: str
    where: str
    state: str = ""
    error: str | None = None

    @property
    def words(self) -> str:
        """The facts, or why it failed."""
        return f"failed: {self.error or 'no error was recorded'}" if self.state == "failed" else self.facts


@final
@dataclass(frozen=True)
class Standing:
    """How all of it stands."""

    heading: str
    lanes: tuple[Lane, ...]

    def text(self) -> str:
        """Return plain lines."""
        return "\n".join([printable(self.heading), *(_line(lane) for lane in self.lanes)])


class View(Protocol):
    """Shows progress somewhere."""

    def show(self, standing: Standing) -> None:
        """Show how it stands now."""

    def close(self, standing: Standing) -> None:
        """Show it for the last time."""


@final
class NotebookView:
    """One display of a notebook, updated where something has changed.

    Parameters
    ----------
    display : callable
        IPython's ``display``.
    """

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handle: Any = None
        self._shown: Standing | None = None

    def show(self, standing: Standing) -> None:
        """Show it, or update what is shown."""
        if standing == self._shown:
            return
        self._shown = standing
        bundle = {"text/plain": standing.text(), "text/html": html(standing)}
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            # Some kernels refuse updates from threads: then it is shown as it ends.
            with contextlib.suppress(LookupError, RuntimeError):
                self._handle.update(bundle, raw=True)

    def close(self, standing: Standing) -> None:
        """Leave it as it ended."""
        self.show(standing)


@final
class TerminalView:
    """Some lines of a terminal, updated.

    Parameters
    ----------
    console : rich.console.Console, optional
        Default: one on standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True) if console is None else console
        self._live = Live(console=self._console, auto_refresh=False)

    def show(self, standing: Standing) -> None:
        """Show it."""
        if not self._live.is_started:
            self._live.start()
        self._live.update(_table(standing, self._console.width), refresh=True)

    def close(self, standing: Standing) -> None:
        """Leave it as it ended."""
        self.show(standing)
        self._live.stop()


@final
class PlainView:
    """A line as each run begins, and one as it ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._states: dict[str, str] = {}

    def show(self, standing: Standing) -> None:
        """Write what has begun or ended."""
        for lane in standing.lanes:
            turn = "over" if lane.state in OVER else "begun" if lane.state else ""
            if self._states.get(lane.label, "") != turn:
                self._states[lane.label] = turn
                self._stream.write(f"{printable(standing.heading)}: {_line(lane)}\n")
        self._stream.flush()

    def close(self, standing: Standing) -> None:
        """Write the last line."""
        self.show(standing)
        self._stream.write(f"{printable(standing.heading)}\n")
        self._stream.flush()


def html(standing: Standing) -> str:
    """Return it with bars: inline styles and no script, so that it stays as it is, on light and dark pages."""
    rows = "".join(_row(lane) for lane in standing.lanes)
    grid = '<div style="display:grid;grid-template-columns:minmax(6em,max-content) 8em minmax(0,1fr);gap:.15em 1em;align-items:center">'
    # No live region: what changes twice a second nobody wants to have read aloud.
    return (
        '<div role="group" aria-label="progress" style="font-size:.9em;font-variant-numeric:tabular-nums">'
        f"<div>{escape(standing.heading)}</div>{f'{grid}{rows}</div>' if rows else ''}</div>"
    )


def _row(lane: Lane) -> str:
    color = FAILED if lane.state == "failed" else lane.color
    where = f' <span style="opacity:.7">{escape(lane.where)}</span>' if lane.where else ""
    name = f'<span style="overflow-wrap:anywhere"><strong>{escape(lane.label)}</strong>{where}</span>'
    bar = (
        f'<span role="progressbar" aria-label="{escape(lane.label)}" aria-valuenow="{100 * lane.share:.0f}" aria-valuemin="0" '
        'aria-valuemax="100" style="display:block;height:.55em;background:rgba(127,127,127,.25);border-radius:3px">'
        f'<span style="display:block;width:{100 * lane.share:.1f}%;height:100%;background:{color};border-radius:3px"></span></span>'
    )
    return f"{name}{bar}<span>{escape(lane.words)}</span>"


def _line(lane: Lane) -> str:
    name = lane.label + (f" on {lane.where}" if lane.where else "")
    return printable(f"{name}: {percent(lane.share)}, {lane.words}" if lane.state else f"{name}: {lane.words}")


def _table(standing: Standing, width: int) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    most = max(16, width // 3)
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=most)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for lane in standing.lanes:
        bar = ProgressBar(
            total=1.0, completed=lane.share, width=14, complete_style=lane.color, finished_style=lane.color
        )
        words = Text(printable(lane.words).replace("\n", " "), "red" if lane.state == "failed" else "")
        name = Text(printable(lane.label), "bold") + Text(printable(f" {lane.where}"), "dim")
        grid.add_row(name, bar, words)
    heading = Text(printable(standing.heading))
    return Group(heading, grid) if standing.lanes else heading
