"""Commands for ranks that talk by NCCL: its collectives bring no control word, so now and then the ranks talk over their links.

A step of a GPU is queued, and the host goes on. How many steps lie between two talks is what rank 0 says at each: about so many as
take a hundredth of a second.
"""

from __future__ import annotations

import struct
from typing import Final, final

from scaleml.runtime.command_handler import CommandHandler
from scaleml.runtime.training_rank import TrainingRank

_APART: Final = 0.01
"""Seconds between two talks, at least one step."""
_MOST: Final = 64
_COUNT: Final = struct.Struct("<I")


@final
class QueuedCommands:
    """Has all ranks hear of commands before the step for which rank 0 has stamped them; see `CommandHandler`.

    Parameters
    ----------
    rank : TrainingRank
        One whose steps are those of all ranks.
    commands : CommandHandler
        What applies them.
    """

    def __init__(self, rank: TrainingRank, commands: CommandHandler) -> None:
        self._state, self._world = rank.state, rank.world
        self._now = rank.world.clock.now
        self._commands = commands
        self._due = self._last = rank.state.step
        self._since = self._now()

    @property
    def done(self) -> int:
        """See `CommandHandler.done`."""
        return self._commands.done

    def apply_due(self, *, announced: bool = False) -> None:
        """See `CommandHandler.apply_due`."""
        if self._state.step >= self._due:
            self._talk()
        self._commands.apply_due(announced=announced)

    def announce_new(self) -> None:
        """See `CommandHandler.announce_new`."""
        if self._state.step >= self._due:
            self._talk()
        self._commands.announce_new()

    def _talk(self) -> None:
        now, step = self._now(), self._state.step
        seconds = (now - self._since) / max(1, step - self._last)
        self._since, self._last = now, step
        wanted = int(min(_MOST, max(1.0, _APART / seconds if seconds > 0 else 1.0)))
        (apart,) = _COUNT.unpack(self._world.allgather_bytes(_COUNT.pack(wanted))[0])
        self._due = step + apart
        self._commands.heard_after = self._due - 1
