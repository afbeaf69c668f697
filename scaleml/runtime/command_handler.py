"""How a training rank obeys: rank 0 stamps commands and announces them, all ranks apply them at their boundaries."""

from __future__ import annotations

from time import perf_counter as clock
from typing import TYPE_CHECKING, Any
from weakref import proxy

from scaleml.comm import Aborted
from scaleml.comm.collectives import placement
from scaleml.compression.base import kept
from scaleml.runtime.commands import Command, CommandQueue, fault_from, strategy_from
from scaleml.runtime.handover import level
from scaleml.strategies import Strategy

if TYPE_CHECKING:
    from scaleml.runtime.training_loop import TrainingLoop


class CommandHandler:
    """The commands of one rank.

    Parameters
    ----------
    loop : TrainingLoop
        The rank, which is changed.
    command_queue : CommandQueue
        Where commands arrive, if this is rank 0.

    Attributes
    ----------
    applied : int
        The number of the last command that took effect here.
    """

    def __init__(self, loop: TrainingLoop, command_queue: CommandQueue) -> None:
        self._loop = proxy(loop)  # no cycle: a loop's memory goes back with it, not when garbage is collected
        self._mailbox = command_queue
        self.applied = loop.group.control = 0 if loop.plan.handover is None else loop.plan.handover.commands

    def obey(self) -> None:
        """Apply the commands that are due at this boundary; rank 0 first stamps and announces those that arrived."""
        loop = self._loop
        self.listen()
        while self.applied < loop.group.control and not loop.leaving:
            command = Command.decode(loop.group.await_announcement(self.applied + 1))
            if command.after >= loop.step:
                break
            self.applied = command.number
            self._do(command)

    def listen(self) -> None:
        """On rank 0: stamp and announce a command that arrived."""
        if self._loop.group.rank == 0 and self._mailbox.pending:
            command = self._mailbox.take()
            if command is not None:
                self._announce(command, self._carrier())

    def _announce(self, command: Command, after: int) -> None:
        stamped = command.stamped(after)
        self._loop.group.announce(stamped.number, stamped.encode())
        if self._loop.pace is not None:
            self._loop.pace.announced()

    def _carrier(self) -> int:
        """Return the step whose messages carry a command of rank 0 to all ranks, who apply it after that step."""
        loop = self._loop
        if loop.pace is not None:
            return loop.pace.common_step(loop.step)
        if loop.group.size == 1:
            return -1  # at once
        return loop.strategy.carrier(loop.step, loop.epoch_end, loop.group.size)

    def _do(self, command: Command) -> None:
        loop = self._loop
        if command.verb == "pause":
            self._pause(command)
            return
        if command.verb == "stop":
            loop.stopping = True
        elif command.verb == "switch":
            loop.switching = True
        elif command.verb == "update":
            self._update(command.settings)
        elif command.verb == "inject":
            loop.suffering.add(fault_from(command.settings), loop.step)
        self._confirm(command)

    def _confirm(self, command: Command) -> None:
        self._loop.report("applied", number=command.number, verb=command.verb, step=self._loop.step)

    def _pause(self, command: Command) -> None:
        """Park at this boundary until a resume or a stop; a pause is no training time."""
        loop = self._loop
        loop.note()
        began = clock()
        if loop.pace is not None:
            loop.pace.park(loop.w)
        self._confirm(command)
        while True:
            if loop.group.rank == 0 and self.applied == loop.group.control:  # nothing was announced before the pause
                told = self._mailbox.wait()
                if told is None:
                    raise Aborted("the run ended while it was paused")
                self._announce(told, loop.step - 1)
            command = Command.decode(loop.group.await_announcement(self.applied + 1))
            self.applied = command.number
            if command.verb in ("resume", "stop", "switch"):
                loop.recorder.skip(clock() - began)
                self._do(command)
                return
            if command.verb == "pause":
                self._confirm(command)
            else:
                self._do(command)

    def _update(self, settings: dict[str, Any]) -> None:
        loop, changes = self._loop, []
        if "learning_rate" in settings:
            loop.optimizer.optimizer = loop.optimizer.optimizer.with_rate(settings["learning_rate"])
            changes.append(f"learning_rate={settings['learning_rate']}")
        if "batch_size" in settings:
            loop.batch_size = loop.gradients.batch_size = settings["batch_size"]
            changes.append(f"batch_size={settings['batch_size']}")
        if "strategy" in settings:
            strategy = strategy_from(settings["strategy"])
            self._follow(strategy)
            changes.append(f"strategy={strategy!r}")
        if loop.group.rank == 0:
            loop.mark(", ".join(changes))

    def _follow(self, strategy: Strategy) -> None:
        """Go on with another strategy, from the same parameters and the same optimizer's state on all ranks."""
        loop = self._loop
        if not loop.committed:
            loop.mean(loop.w)
        before, codec = loop.strategy, "compression"
        residuals = {}
        if type(before) is type(strategy):  # what one has not sent yet is then what the other sends
            residuals = kept(loop.state, getattr(before, codec, None), getattr(strategy, codec, None))
        level(loop)
        loop.state |= residuals
        loop.strategy = strategy.fitted(loop.w.nbytes, placement(loop.group.hosts))
        strategy.begin(loop.w, loop.state)
