"""Colours and dashes that stay apart for colour-blind readers, in print, and on light and dark pages.

After Okabe and Ito, "Color Universal Design" (2008), without its yellow, which vanishes on white.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SERIAL = "#7F7F7F"
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
# A colour and the first dashes of each strategy: those that stand beside each other differ in dashes, too, for a line must be
# found without seeing its colour.
_LOOKS = {
    "Serial": (SERIAL, 0),
    "AllReduce": (LINES[0], 0),
    "ParameterServer": (LINES[1], 1),
    "LocalSGD": (LINES[2], 2),
    "Gossip": (LINES[3], 3),
    "Hogwild": (LINES[4], 1),
    "ShardedDataParallel": (LINES[5], 2),
}

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


def strokes(labels: Sequence[str], first_labels: Sequence[str] | None = None) -> list[Stroke]:
    """One stroke a run, by its label: a strategy has its colour for ever, in every chart, picture and page.

    Runs of the same label (the rounds of a comparison) look the same; other settings of a strategy have its colour and other dashes,
    after four of those another shade. A run that was renamed keeps the colour of its strategy: ``first_labels`` are those before.

    >>> [stroke.color for stroke in strokes(["Serial()", "AllReduce()", "LocalSGD(period=8)", "AllReduce()"])]
    ['#7F7F7F', '#0072B2', '#009E73', '#0072B2']
    >>> [stroke.dashes for stroke in strokes(["LocalSGD(period=8)", "LocalSGD(period=4)"])]
    [(1.5, 1.5), (6, 2, 1.5, 2)]
    >>> strokes(["best"], ["LocalSGD(period=8)"])[0].color
    '#009E73'
    """
    found: dict[str, Stroke] = {}
    variants: dict[str, int] = {}
    for label, first_label in zip(labels, first_labels or labels, strict=True):
        if label not in found:
            color, first = _look(kind(first_label))
            variant = variants[color] = variants.get(color, -1) + 1
            dashes = DASHES[(first + variant) % len(DASHES)]
            found[label] = Stroke(_paler(color, 0.45 * (variant // len(DASHES) % 2)), dashes)
    return [found[label] for label in labels]


def kind(label: str) -> str:
    """Return the name of the strategy that a label begins with.

    >>> kind("ParameterServer('async'), SGD(0.05)")
    'ParameterServer'
    """
    return label.partition("(")[0].strip()


def _look(name: str) -> tuple[str, int]:
    """Return a strategy's colour and first dashes; of one that is not known here those that its name gives."""
    if not name or name in _LOOKS:
        return _LOOKS.get(name, (LINES[0], 0))
    code = zlib.crc32(name.encode(errors="surrogatepass"))
    return LINES[code % len(LINES)], code // len(LINES) % len(DASHES)


def _paler(color: str, share: float) -> str:
    """Mix a colour with so much grey."""
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + share * (0xB0 - part)):02X}" for part in parts)
