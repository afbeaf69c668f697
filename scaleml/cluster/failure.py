"""A run's failure, as its signs come: ranks' errors, stalls, a late start, a lost client; its root, and the words for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from scaleml.cluster import failure_words as words
from scaleml.cluster.events import ClientBack, ClientLost, RankFailed, StartCancelled
from scaleml.cluster.failure_detector import Silence


@dataclass
class Failure:
    """The signs that something is wrong with a run's ranks; without any the run has not failed.

    Parameters
    ----------
    addresses : sequence of str
        The Dask worker of each rank.
    counts_steps : bool
        Whether the ranks have steps to name in errors.

    Attributes
    ----------
    since : float or None
        When the first sign came.
    errors : list of RankFailed
        What ranks have ended with, as it came.
    cancelled : bool
        Whether the user has given up the start.
    stalled : dict
        The ranks that were found stalled.
    client_lost, client_back, late : str or None
        What to say of a client that is gone, of one that had been, and of a rank that has not entered in time.
    """

    addresses: Sequence[str]
    counts_steps: bool = True
    since: float | None = None
    errors: list[RankFailed] = field(default_factory=list)
    cancelled: bool = False
    stalled: dict[int, Silence] = field(default_factory=dict)
    client_lost: str | None = None
    client_back: str | None = None
    late: str | None = None

    def begin(self, now: float) -> bool:
        """Note that a sign has come at a time; whether it is the first."""
        is_first = self.since is None
        self.since = now if self.since is None else self.since
        return is_first

    def note(self, event: RankFailed | Silence | ClientLost | ClientBack | StartCancelled) -> str:
        """Take in a sign, and return what to tell the ranks of it."""
        if isinstance(event, RankFailed):
            if event.cause == "unknown":  # to be told to end is no fault of its own
                event = replace(event, cause="own" if self.since is None else "told")
            self.errors.append(event)
            return event.error
        if isinstance(event, Silence):
            self.stalled[event.rank] = event
            return f"rank {event.rank} has not been heard for {event.seconds:.0f} s"
        if isinstance(event, ClientLost):
            self.client_lost = event.reason
            return event.reason
        if isinstance(event, ClientBack):
            self.client_back = event.reason
            return event.reason
        self.cancelled = True
        return "the run was stopped while it was starting"

    @property
    def is_known(self) -> bool:
        """Whether it needs no root among the ranks."""
        return bool(self.client_lost or self.client_back)

    def names(self, rank: int) -> bool:
        """Whether this rank has told of an error."""
        return any(error.rank == rank for error in self.errors)

    def is_loss(self, has_lost: bool) -> bool:
        """Whether nothing but workers (``has_lost``), or links between them, was lost, as far as is known."""
        first = self.errors[0].cause if self.errors else "peer"  # "told" first: by somebody else than the supervisor
        own = (first == "told" and not has_lost) or any(error.cause == "own" for error in self.errors)
        return not (own or self.cancelled or self.client_lost or self.late)

    def culprit(self, ended: Mapping[int, str]) -> int | None:
        """Return the rank whose error is named as the cause, if one is, of ranks that have ``ended`` so."""
        if not self.errors or "lost" in ended.values() or self.late or self.client_lost:
            return None
        return (self._nearest() or self.errors[0]).rank

    def root(self, ended: Mapping[int, str], step: int) -> str | None:
        """Return what is no consequence of something else; None where only consequences are known.

        Parameters
        ----------
        ended : mapping
            How ranks came to their end.
        step : int
            How far they had come.
        """
        lost = [rank for rank, status in sorted(ended.items()) if status == "lost"]
        if lost:
            return self._loss(lost, self._at(step))
        if self.late is not None:
            return self.late
        nearest = self._nearest()
        if nearest is not None:
            return f"rank {nearest.rank} on worker {self._where(nearest)}: {nearest.error}"
        return None

    def cause(self, ended: Mapping[int, str], step: int) -> str:
        """Return the root, or else the first sign."""
        root = self.root(ended, step)
        if root is not None:
            return root
        if self.client_lost or self.client_back:
            return self.client_lost or self.client_back or ""
        first = self.errors[0]
        peer = f", which lost rank {first.peer} on worker {self.addresses[first.peer]}" if first.peer >= 0 else ""
        return f"rank {first.rank} on worker {self._where(first, peer)}: {first.error}"

    def _loss(self, lost: Sequence[int], at: str) -> str:
        silent = {self.addresses[rank]: silence for rank, silence in self.stalled.items()}
        gone = [rank for rank in lost if self.addresses[rank] not in silent]
        stalled = [words.stalled(silence, address, at) for address, silence in silent.items()]
        return "; ".join([*stalled, *([words.lost(gone, self.addresses, at)] if gone else [])])

    def _nearest(self) -> RankFailed | None:
        """Return the first error that is no consequence: of a rank's own, or else of the network."""
        causes = "own", "frame"
        return next((error for cause in causes for error in self.errors if error.cause == cause), None)

    def _where(self, error: RankFailed, more: str = "") -> str:
        return f"{self.addresses[error.rank]}{more} failed{self._at(error.step)}"

    def _at(self, step: int) -> str:
        return f" at step {step}" if self.counts_steps else ""
