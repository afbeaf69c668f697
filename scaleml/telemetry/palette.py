"""Colours and dashes that stay apart for colour-blind readers, in print, and on light and dark pages.

After Okabe and Ito, "Color Universal Design" (2008), without its yellow, which vanishes on white.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SERIAL = "#7F7F7F"
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))

PARTS = {"compute": "#0072B2", "wait": "#E69F00", "comm": "#CC79A7", "apply": "#009E73", "other": "#9A9A9A"}
HATCHES = {"compute": "", "wait": "////", "comm": "....", "apply": "", "other": ""}


@final
@dataclass(frozen=True)
class Theme:
    """The colours of a page."""

    paper: str
    ink: str
    faint: str


LIGHT = Theme(paper="#ffffff", ink="#1f2328", faint="#d8dce0")
DARK = Theme(paper="#16181c", ink="#e4e6e9", faint="#3a3f46")


@final
@dataclass(frozen=True)
class Stroke:
    """How one run is drawn."""

    color: str
    dashes: tuple[float, ...]


def strokes(serial: Sequence[bool]) -> list[Stroke]:
    """One stroke a run: serial runs grey, the others in colours; colours that repeat get other dashes.

    >>> [stroke.color for stroke in strokes([True, False, False])]
    ['#7F7F7F', '#0072B2', '#D55E00']
    """
    found = []
    for i, is_serial in enumerate(serial):
        before = sum(1 for other in serial[:i] if other == is_serial)
        if is_serial:
            found.append(Stroke(SERIAL, DASHES[before % len(DASHES)]))
        else:
            # Neighbours differ in dashes as well as in colour: a line must be found without seeing its colour.
            found.append(Stroke(LINES[before % len(LINES)], DASHES[(before + before // len(LINES)) % len(DASHES)]))
    return found
