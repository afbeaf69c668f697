"""The account of a recovery: who was replaced or left out, from where ranks go on, and what is lost for good; in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from scaleml.cluster import failure_words as words
from scaleml.cluster.losses import Reached, losses
from scaleml.cluster.recovery import WayOn
from scaleml.runtime.plan import Plan


@dataclass
class RecoveryAccount:
    """What is to be told of one recovery.

    Parameters
    ----------
    how : str
        What became of the ranks.
    links : str
        What there is to tell where no rank was lost.
    replaced, left_out : list of int
        The ranks that others have taken the place of, and those that nobody has.
    losses : list of str
        What is gone for good.
    as_they_are : bool
        Whether nobody goes back to an earlier step.
    is_from_disk : bool
        Whether ranks begin from a checkpoint.

    Examples
    --------
    >>> account = RecoveryAccount(left_out=[1])
    >>> account.text(9, 8, "after 0.10 s")
    'rank 1 left out: lost at step 9, goes on from step 8, after 0.10 s'
    """

    how: str = "lost"
    links: str = "links lost and made again"
    replaced: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    as_they_are: bool = False
    is_from_disk: bool = False

    def add(self, way: WayOn, lost: Sequence[int], plan: Plan, reached: Reached) -> None:
        """Take in how ranks go on, and what is lost with those ``lost`` where nobody goes back; by their former numbers and plan."""
        self.as_they_are = not way.is_exact
        if self.as_they_are:
            said = losses(way, lost, plan, reached)
            self.losses += [one for one in said if one not in self.losses]

    @property
    def who(self) -> str:
        """Whom it concerns."""
        found = [(self.replaced, "replaced"), (self.left_out, "left out")]
        return ", ".join(f"{words.ranks_in_words(ranks)} {what}" for ranks, what in found if ranks) or self.links

    @property
    def what(self) -> str:
        """Whom it concerns, and what is gone."""
        return ", ".join([self.who, *self.losses])

    def text(self, step: int, goes_on_from: int, after: str) -> str:
        """Return all of it: lost at which step, from which step ranks go on (-1 for the beginning), and after what time."""
        since = f"goes on from step {goes_on_from}" if goes_on_from >= 0 else "goes on from the beginning"
        since += " of its checkpoint" if self.is_from_disk else ""
        since = "others go on as they are" if self.as_they_are else since
        return "; ".join([f"{self.who}: {self.how} at step {step}, {since}, {after}", *self.losses])
