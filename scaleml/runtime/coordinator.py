"""The asynchronous coordinator: what ranks that keep no common steps agree through; servers, one shared vector, or neighbours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator


class AsynchronousCoordinator(ABC):
    """One rank's end of it.

    What most have nothing to do for is answered here.

    Attributes
    ----------
    evaluations_due : int
        So far.
    done : bool
        Whether the run has had its rows.
    held : bool
        Whether this rank must wait before its next step, and was called away from waiting.
    widest : int or None
        How many clocks ranks were apart at most; None where nobody counts them.
    """

    evaluations_due: int = 0
    done: bool = False
    held: bool = False
    widest: int | None = None

    def stepped(self, rows: int) -> None:  # noqa: B027
        """Note a step over ``rows`` rows."""

    def wait(self, w: Array) -> None:  # noqa: B027
        """Go on waiting before the next step."""

    def announced(self) -> None:  # noqa: B027
        """On rank 0: a command was announced; have the others look, unless what travels anyway tells them."""

    def park(self, w: Array) -> None:  # noqa: B027
        """Before a pause: leave no answer owing, to this rank or by it."""

    def taken(self) -> list[float]:
        """Return the rows of each rank since all began, as far as they are in parameters that this rank sees; nothing if it cannot know."""
        return []

    def common_step(self, step: int) -> int:
        """Return a step that no rank takes before it hears what rank 0 announced before its ``step``; -1 for none."""
        return -1

    def server_states(self, *, at_end: bool = False) -> list[Callable[[], bytes]]:
        """Return on rank 0 what makes bytes of each server's state, for a checkpoint: as it is now, when all ranks that train have come
        here and wait for rank 0, or was at the end.
        """
        return []

    @abstractmethod
    def leave(self, w: Array) -> bool:
        """After the last step: wait for what must be waited for; False if there is something to do with the others first."""

    @abstractmethod
    def agreed(self, w: Array, workers: Communicator) -> Array:
        """Return parameters to evaluate, the same on all ranks that train; collective among them."""

    @abstractmethod
    def collect(self, w: Array, workers: Communicator) -> None:
        """Give all ranks that train the final parameters, in place; collective among them."""


def of_rank_0(w: Array, workers: Communicator) -> Array:
    """Return rank 0's parameters, where each rank has its own; collective."""
    theirs = w.copy()
    workers.broadcast(theirs)
    return theirs
