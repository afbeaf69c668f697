"""Verdict: what to use and why, as one string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from scaleml.escaping import printable


@final
class Verdict(str):
    """What to use and why, as one string.

    Attributes
    ----------
    headline : str
        The answer, one sentence.
    reasons : tuple of str
        What it rests on, one sentence each.
    best : int or None
        The index of the recommended run.
    """

    headline: str
    reasons: tuple[str, ...]
    best: int | None

    def __new__(cls, headline: str, reasons: Sequence[str] = (), best: int | None = None) -> Verdict:
        said = [printable(sentence) for sentence in (headline, *reasons)]
        self = super().__new__(cls, " ".join(said))
        self.headline, self.reasons, self.best = said[0], tuple(said[1:]), best
        return self

    def __getnewargs__(self) -> tuple[str, tuple[str, ...], int | None]:  # type: ignore[override]
        return self.headline, self.reasons, self.best
