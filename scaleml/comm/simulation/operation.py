"""One collective in simulated time: who has come to it when, what comes of it, and when it is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NamedTuple, final

from scaleml.comm.errors import Mismatch
from scaleml.comm.transport.context import RankContext
from scaleml.comm.transport.frame import Key

Outcome = Callable[[Sequence[Any]], tuple[Sequence[Any], float]]
"""What all ranks get, by what all gave, both in rank order; and the seconds it takes once all are there."""


class Post(NamedTuple):
    """One rank's part.

    Attributes
    ----------
    time : float
        When it came.
    before : Operation or None
        What must be over first: this rank's last one in the background.
    data : object
        What it gives.
    delay : float
        Seconds by which its bad links hold up the whole.
    """

    context: RankContext
    key: Key
    time: float
    before: Operation | None
    data: Any
    delay: float


@final
class Operation:
    """A collective of so many ranks.

    Parameters
    ----------
    ranks : tuple of int
        The members, by root numbers.
    outcome : callable
        What comes of it.
    """

    def __init__(self, ranks: tuple[int, ...], outcome: Outcome) -> None:
        self.ranks = ranks
        self.results: Sequence[Any] = ()
        self._outcome = outcome
        self._posts: dict[int, Post] = {}
        self._failed = self._over = inf
        self._seconds = 0.0
        self._control = 0
        self._error: Mismatch | None = None

    def post(self, member: int, post: Post) -> None:
        """Come to it; the last one makes the results."""
        self._posts[member] = post
        if any(other.key != post.key for other in self._posts.values()):
            self._failed = min(self._failed, post.time)
        if self.is_full and self._failed == inf:
            given = [self._posts[rank].data for rank in range(len(self.ranks))]
            delay = max(post.delay for post in self._posts.values())
            self._control = max(post.context.control for post in self._posts.values())
            try:
                self.results, seconds = self._outcome(given)
                self._seconds = seconds + delay
            except Mismatch as error:
                self._error = error

    @property
    def is_full(self) -> bool:
        """Whether all have come."""
        return len(self._posts) == len(self.ranks)

    def missing(self) -> list[int]:
        """Return who has not come, by root numbers."""
        return [root for member, root in enumerate(self.ranks) if member not in self._posts]

    def last_arrival(self) -> tuple[float, int]:
        """Return when the last of all was there, and its root number; infinity as long as that is not known."""
        if not self.is_full:
            return inf, self.missing()[0]
        arrivals = {
            self.ranks[member]: max(post.time, post.before.completion() if post.before is not None else 0.0)
            for member, post in self._posts.items()
        }
        last = max(arrivals.values())
        return last, min(root for root, arrival in arrivals.items() if arrival == last)

    def completion(self) -> float:
        """Return when it is over, infinity as long as that is not known."""
        if self._over == inf and self._failed < inf:
            self._over = self._failed
        if self._over == inf and self.is_full:
            self._over = self.last_arrival()[0] + self._seconds
        return self._over

    def finish(self, member: int) -> None:
        """Take over the others' control word.

        Raises
        ------
        Mismatch
            If another rank came to another collective.
        """
        mine = self._posts[member]
        if self._failed < inf:
            raise self._mismatch(member, mine)
        if self._error is not None:
            raise self._error
        mine.context.raise_control(self._control)

    def _mismatch(self, member: int, mine: Post) -> Mismatch:
        other = min(rank for rank, post in self._posts.items() if post.key != mine.key)
        theirs = self._posts[other]
        return mine.key.mismatch(
            theirs.key, mine.context.rank, mine.context.step, self.ranks[other], theirs.context.step
        )
