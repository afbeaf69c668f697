"""Place of a run in a comparison: which contender's it is, and in which round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

Stage = Literal["warm-up", "tuning", "round"]


@final
@dataclass(frozen=True)
class Place:
    """Where a run stands in a comparison.

    Parameters
    ----------
    comparison : str
        Which comparison: only runs of the same one were interleaved.
    entry : int
        Which contender.
    stage : {"warm-up", "tuning", "round"}
        Only rounds count.
    round : int
        Of the stage, from 0. Runs of the same round have the same seed.
    of : int or None
        How many rounds there will be, as far as that is known.

    Examples
    --------
    >>> str(Place("c0", 1, "round", 2, 5)), str(Place("c0", 1, "warm-up", 0))
    ('round 3 of 5', 'warm-up')
    """

    comparison: str
    entry: int
    stage: Stage = "round"
    round: int = 0
    of: int | None = None

    def __str__(self) -> str:
        if self.stage == "warm-up":
            return self.stage
        of = "" if self.of is None else f" of {self.of}"
        return f"{self.stage} {self.round + 1}{of}"
