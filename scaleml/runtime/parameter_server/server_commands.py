"""The command handler of a server: what was told for after a step acts on the pushes of later steps."""

from __future__ import annotations

from typing import final

from scaleml.comm.communicator import Communicator
from scaleml.runtime.commands import Command
from scaleml.runtime.fault_injection import FaultInjector
from scaleml.runtime.plan import Plan
from scaleml.runtime.schedule_place import follow_servers_pace
from scaleml.runtime.serialization import fault_from
from scaleml.runtime.train_state import TrainState


@final
class ServerCommandHandler:
    """The commands of one server.

    Parameters
    ----------
    plan : Plan
        The run.
    world : Communicator
        All ranks.
    state : TrainState
        The server's: what takes a new learning rate or another pace, and counts the commands that took effect.
    faults : FaultInjector
        What takes a fault.
    """

    def __init__(self, plan: Plan, world: Communicator, state: TrainState, faults: FaultInjector) -> None:
        self._plan = plan
        self._world = world
        self._state = state
        self._faults = faults
        world.control = state.commands

    def apply_due(self, step: int, following: int) -> None:
        """Before what a worker sent at its ``step`` is taken in: do what was told for after an earlier one.

        ``following`` is the server's own step after this one.
        """
        state = self._state
        while state.commands < self._world.control:
            command = Command.decode(self._world.await_announcement(state.commands + 1))
            if command.after >= step:
                return
            state.commands = command.number
            # The other commands concern the workers.
            if command.verb == "inject":
                self._faults.add(fault_from(command.settings), following)
            if "learning_rate" in command.settings:
                assert state.optimizer is not None
                state.optimizer = state.optimizer.with_rate(command.settings["learning_rate"])
            if "batch_size" in command.settings:
                self._follow_batch_size(command.settings["batch_size"])

    def _follow_batch_size(self, batch_size: int) -> None:
        plan = self._plan
        follow_servers_pace(plan, self._state, batch_size, plan.strategy.updates_a_batch(plan.layout.workers))
