"""What every benchmark reports: rows of ratios with their targets, as a table and as JSON."""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scaleml.telemetry.environment import processor_name
from scaleml.telemetry.verdict.statistics import PairedRatio

RESULTS = Path(__file__).with_name("results.json")
# Both sides of every comparison run with these.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` is None where the peer is missing; `note` then says what to install.

    Parameters
    ----------
    what, peer : str
        What was measured, and against whom.
    ours, theirs : float or None
        The two figures, in `unit`.
    unit : str
        ``"us"``, ``"ms"``, ``"s"`` or ``"samples/s"``.
    ratio : float or None
        How many times ours is better, or ours over theirs: as the target is worded.
    target : float or None
        What the ratio should reach (``sense="at least"``) or not pass (``"at most"``). None for rows that only inform.
    """

    what: str
    peer: str
    ours: float | None
    theirs: float | None
    unit: str
    ratio: float | None
    target: float | None = None
    sense: Literal["at least", "at most"] = "at least"
    note: str = ""
    spread: tuple[float, float] | None = None
    """Where the ratio lies with 95%: from the rounds' paired log ratios; None of fewer than two rounds."""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without a target or a figure."""
        if self.ratio is None or self.target is None:
            return None
        return self.ratio >= self.target if self.sense == "at least" else self.ratio <= self.target


def compare(
    what: str,
    peer: str,
    mine: Sequence[float],
    theirs: Sequence[float],
    unit: str,
    target: float | None = None,
    *,
    sense: Literal["at least", "at most"] = "at least",
    inverse: bool = False,
    note: str = "",
) -> Row:
    """Return the row of two peers that took turns.

    Parameters
    ----------
    mine, theirs : sequences of float
        One figure a round each, in pairs. The row has their medians, and the geometric mean of the rounds' ratios with its interval.
    inverse : bool
        False for ours over theirs, True for theirs over ours.
    """
    above, below = (theirs, mine) if inverse else (mine, theirs)
    ratio, low, high = PairedRatio.of(above, below).interval()
    spread = (low, high) if len(above) > 1 else None
    return Row(what, peer, statistics.median(mine), statistics.median(theirs), unit, ratio, target, sense, note, spread)


def missing(what: str, peer: str, target: float | None, hint: str) -> Row:
    """Return the row of a peer that is not there."""
    return Row(what, peer, None, None, "", None, target, note=f"missing: {hint}")


def table(rows: Sequence[Row], title: str = "") -> Any:
    """Return a rich table of the rows."""
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title=title or None, title_justify="left", show_lines=False)
    for head in ("measured", "against", "scaleml", "the other", "ratio", "95%", "target", ""):
        words = head in {"measured", "against", ""}
        drawn.add_column(head, justify="left" if words else "right", no_wrap=not words)
    for row in rows:
        mark = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[row.met]
        sign = ">=" if row.sense == "at least" else "<="
        drawn.add_row(
            row.what,
            row.peer,
            _figure(row.ours, row.unit),
            _figure(row.theirs, row.unit),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.spread is None else f"{row.spread[0]:.2f} to {row.spread[1]:.2f}",
            "" if row.target is None else f"{sign} {row.target:g}",
            " ".join(part for part in (mark, escape(row.note)) if part),
        )
    return drawn


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    from importlib.metadata import version

    return {
        "processor": processor_name(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "distributed": version("distributed"),
    }


def save(rows: Sequence[Row], path: Path) -> None:
    """Write the rows and the machine as JSON."""
    content = {"machine": machine(), "rows": [{**asdict(row), "met": row.met} for row in rows]}
    path.write_text(json.dumps(content, indent=1) + "\n")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the options that every benchmark has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--rounds", type=int, default=9, help="rounds; every figure is a median over them (default 9)")
    options.add_argument(
        "--json",
        nargs="?",
        type=Path,
        const=RESULTS,
        metavar="PATH",
        help=f"also write the rows (default {RESULTS.name})",
    )
    return options


def alone(measure: Callable[[int], list[Row]], description: str | None) -> None:
    """Run one benchmark by itself, as ``python -m benchmarks.<name>``."""
    chosen = parser(description).parse_args()
    os.environ.update(ONE_THREAD)
    show(measure(chosen.rounds), chosen.json)


def show(rows: Sequence[Row], path: Path | None) -> None:
    """Print the table, and write the JSON where it is wanted."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(rows))
    console.print(
        f"{processor_name()}, {os.cpu_count()} cores; medians over the rounds, ratios with their 95% intervals",
        highlight=False,
    )
    if path is not None:
        save(rows, path)


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
