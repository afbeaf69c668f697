"""How a server obeys: what was told for after a step acts on the pushes of later steps."""

from __future__ import annotations

from typing import Any, final

from scaleml.runtime.commands import Command, fault_from
from scaleml.runtime.fault_injection import FaultInjector
from scaleml.runtime.parameter_server.server_optimizer import DenseServerOptimizer, SparseServerOptimizer


@final
class ServerCommandHandler:
    """The commands of one server.

    Parameters
    ----------
    group : Group
        All ranks.
    held : DenseServerOptimizer or SparseServerOptimizer
        What takes a new learning rate.
    suffering : FaultInjector
        What takes a fault.
    given : int
        How many commands the run was given before this server began.
    """

    def __init__(
        self, group: Any, held: DenseServerOptimizer | SparseServerOptimizer, suffering: FaultInjector, given: int
    ) -> None:
        self._group = group
        self._held = held
        self._suffering = suffering
        self._applied = group.control = given

    def obey(self, step: int, following: int) -> None:
        """Before what a worker sent at its ``step`` is taken in: do what was told for after an earlier one.

        ``following`` is the server's own step after this one.
        """
        while self._applied < self._group.control:
            command = Command.decode(self._group.await_announcement(self._applied + 1))
            if command.after >= step:
                return
            self._applied = command.number
            # The other commands concern the workers.
            if command.verb == "inject":
                self._suffering.add(fault_from(command.settings), following)
            elif "learning_rate" in command.settings:
                self._held.optimizer = self._held.optimizer.with_rate(command.settings["learning_rate"])
