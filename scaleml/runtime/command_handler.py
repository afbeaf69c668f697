"""The command handler of a training rank: rank 0 stamps commands and announces them, all ranks apply them at their boundaries."""

from __future__ import annotations

import logging
from typing import Final
from weakref import proxy

from scaleml.comm import Aborted
from scaleml.compression.error_feedback import kept
from scaleml.runtime.commands import Command, CommandQueue, Settings
from scaleml.runtime.serialization import fault_from, strategy_from
from scaleml.runtime.training_rank import TrainingRank
from scaleml.strategies import Strategy

_log = logging.getLogger(__name__)


class CommandHandler:
    """The commands of one rank.

    Parameters
    ----------
    rank : TrainingRank
        The rank, which is changed.
    queue : CommandQueue
        Where commands arrive, if this is rank 0.
    """

    def __init__(self, rank: TrainingRank, queue: CommandQueue) -> None:
        self._rank: Final[TrainingRank] = proxy(
            rank
        )  # no cycle: a rank's memory goes back with it, not when garbage is collected
        self._state, self._world, self._stamps = rank.state, rank.world, rank.world.stamps
        self._queue = queue
        self._is_first = rank.world.rank == 0
        self.heard_after: int | None = None
        """The step after which all ranks know of what rank 0 announces now, where the messages of a step do not tell them."""
        rank.world.control = rank.state.commands
        self._paused_by = 0

    @property
    def done(self) -> int:
        """How many commands need not be told again to whoever goes on: of a rank that is paused, those before the pause."""
        return self._paused_by - 1 if self._paused_by else self._rank.state.commands

    def apply_due(self, *, announced: bool = False) -> None:
        """Apply the commands that are due at this boundary; rank 0 first stamps and announces those that arrived.

        With ``announced``, all of these: of rank 0 before it waits for ranks that may have applied them, and parked.
        """
        self.announce_new()
        state, stamps = self._state, self._stamps
        while state.commands < stamps.control and not self._rank.leaving:
            command = Command.decode(self._world.await_announcement(state.commands + 1))
            if command.after >= state.step and not announced:
                break
            state.commands = command.number
            self._apply(command)

    def announce_new(self) -> None:
        """On rank 0: stamp and announce a command that arrived."""
        if self._is_first and self._queue.pending:
            command = self._queue.take()
            if command is not None:
                self._announce(command, self._command_step())

    def _announce(self, command: Command, after: int) -> None:
        stamped = command.stamped(after)
        self._world.announce(stamped.number, stamped.encode())
        if self._rank.coordinator is not None:
            self._rank.coordinator.announced()

    def _command_step(self) -> int:
        """Return the step whose messages bring a command of rank 0 to all ranks, who apply it after that step."""
        rank = self._rank
        if rank.coordinator is not None:
            return rank.coordinator.common_step(rank.step)
        if rank.group.size == 1:
            return -1  # at once
        if self.heard_after is not None:
            return self.heard_after
        return rank.strategy.command_step(rank.step, rank.epoch_end, rank.group.size)

    def _apply(self, command: Command) -> None:
        rank = self._rank
        if command.verb == "pause":
            self._pause(command)
            return
        if command.verb == "stop":
            rank.stopping = True
        elif command.verb == "switch":
            rank.switching, rank.changing = True, bool(command.settings.get("same_strategy"))
        elif command.verb == "update":
            self._update(command.settings)
        elif command.verb == "inject":
            rank.faults.add(fault_from(command.settings), rank.step)
        self._confirm(command)

    def _confirm(self, command: Command) -> None:
        _log.debug(
            "rank %d applies command %d, %s, after step %d",
            *(self._world.rank, command.number, command.verb, self._rank.step),
        )
        self._rank.report("applied", number=command.number, verb=command.verb, step=self._rank.step)

    def _pause(self, command: Command) -> None:
        """Park at this boundary until a resume or a stop; a pause is no training time."""
        rank, now = self._rank, self._world.clock.now
        rank.note()
        began = now()
        if rank.coordinator is not None:
            rank.coordinator.park(rank.w)
        self._confirm(command)
        self._paused_by = command.number
        while True:
            if self._is_first and rank.state.commands == self._world.control:  # nothing was announced before the pause
                self._world.check()  # what woke the queue may have been taken before
                told = self._queue.wait()
                if told is None:
                    raise Aborted("the run ended while it was paused")
                self._announce(told, rank.step - 1)
            command = Command.decode(self._world.await_announcement(rank.state.commands + 1))
            rank.state.commands = command.number
            if command.verb in ("resume", "stop", "switch"):
                rank.recorder.skip(now() - began)
                self._paused_by = 0
                self._apply(command)
                return
            if command.verb == "pause":
                self._confirm(command)
            else:
                self._apply(command)

    def _update(self, settings: Settings) -> None:
        rank, changes = self._rank, []
        if "learning_rate" in settings:
            optimizer = rank.state.optimizer
            assert optimizer is not None
            rank.state.optimizer = optimizer.with_rate(settings["learning_rate"])
            changes.append(f"learning_rate={settings['learning_rate']}")
        if "batch_size" in settings:
            rank.batch_size = settings["batch_size"]
            changes.append(f"batch_size={settings['batch_size']}")
        if "strategy" in settings:
            strategy = strategy_from(settings["strategy"])
            self._switch(strategy)
            changes.append(f"strategy={strategy!r}")
        if self._is_first:
            rank.mark(", ".join(changes), "strategy" if "strategy" in settings else "setting")

    def _switch(self, strategy: Strategy) -> None:
        """Have the same ranks go on under another strategy."""
        rank, codec = self._rank, "compression"
        state, before = rank.state, rank.strategy
        if not state.committed:
            rank.mean(state.params)
            state.committed = True
        residuals = {}
        if type(before) is type(strategy):  # what one has not sent yet is then what the other sends
            residuals = kept(state.arrays, getattr(before, codec, None), getattr(strategy, codec, None))
        rank.average_private()
        state.arrays |= residuals
        rank.follow(strategy)
