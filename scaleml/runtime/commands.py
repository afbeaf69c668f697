"""Commands: what a person may tell a run. Stamped by rank 0, applied by all ranks at one boundary."""

from __future__ import annotations

import json
import queue
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

Settings = dict[str, Any]
"""What JSON can say of new settings."""


VERBS: Final = ("pause", "resume", "stop", "update", "inject", "switch")


@dataclass(frozen=True)
class Command:
    """One command.

    Parameters
    ----------
    number : int
        1, 2, ... in the order the run was told.
    verb : {"pause", "resume", "stop", "update", "inject", "switch"}
        What to do.
    settings : dict
        New settings for ``update``: ``learning_rate``, ``batch_size``, ``strategy``; the fault for ``inject``. With ``switch``
        the ranks hand over to others, ``same_strategy`` or not.
    after : int
        The step after which all ranks apply it, stamped by rank 0.
    """

    number: int
    verb: str
    settings: Settings = field(default_factory=dict)
    after: int = -1

    def stamped(self, after: int) -> Command:
        """Return the command with the step after which it takes effect."""
        return replace(self, after=after)

    def encode(self) -> bytes:
        """Return the command as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Command:
        """Read a command back.

        Raises
        ------
        ValueError
            For what is no command, or one that no rank knows.
        """
        try:
            command = cls(**json.loads(bytes(data)))
        except TypeError as error:
            raise ValueError(f"{bytes(data)[:200]!r} is no command: {error}") from None
        if command.verb not in VERBS:
            raise ValueError(f"{command.verb!r} is no command that ranks know: {', '.join(VERBS)}")
        return command


class CommandQueue:
    """Where commands for rank 0 arrive, from another thread; looking whether there is one costs one call."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Command | None] = queue.SimpleQueue()

    @property
    def pending(self) -> bool:
        """Whether something has arrived; asked of the queue each time, for a flag kept beside it could be late for ever."""
        return not self._queue.empty()

    def put(self, command: Command) -> None:
        """Leave a command."""
        self._queue.put(command)

    def wake(self) -> None:
        """Wake whoever waits: the run is over."""
        self._queue.put(None)

    def take(self) -> Command | None:
        """Return the next command at once, or None."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def wait(self) -> Command | None:
        """Wait for the next command; None when woken without one."""
        return self._queue.get()
