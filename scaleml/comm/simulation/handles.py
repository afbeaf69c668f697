"""Handles of what was started in simulated time, and the stream of what one rank has started."""

from __future__ import annotations

from typing import Any, Final, final

from scaleml.comm.simulation.network import Network
from scaleml.comm.simulation.operation import Operation
from scaleml.comm.transport.frame import Key


@final
class SimulatedHandle:
    """A collective that was started; it goes on while its rank computes, and `wait` jumps to its end."""

    def __init__(self, network: Network, rank: int, operation: Operation, member: int, key: Key, sent: int) -> None:
        self._network = network
        self._rank = rank
        self._operation = operation
        self._member = member
        self._key = key
        self._sent = sent
        self.over = False

    def done(self) -> bool:
        """Whether `wait` would return at once."""
        network, operation = self._network, self._operation
        clock = network.tasks[self._rank].clock
        if operation.completion() > clock.now():
            until = clock.now() + network.costs.look
            network.wait(self._rank, lambda: min(until, operation.completion()), self._key, patient=True)
        return operation.completion() <= clock.now()

    def wait(self) -> Any:
        """Wait for the end; return what the blocking form returns.

        Raises
        ------
        CommError
        """
        if not self.over:
            self._wait()
        self._operation.finish(self._member)
        return self._operation.results[self._member]

    def _wait(self) -> None:
        network, operation = self._network, self._operation
        task = network.tasks[self._rank]
        begun = task.clock.now()

        def ready() -> float:
            return min(operation.completion(), network.first_departure(operation.missing(), self._rank))

        network.wait(self._rank, ready, self._key, operation.last_arrival()[1])
        now, meter = task.clock.now(), task.context.meter
        if operation.completion() > now:
            gone = next(rank for rank in operation.missing() if rank in network.left)
            meter.comm += now - begun
            raise task.context.lost(gone, self._key)
        self.over = True
        arrival, last = operation.last_arrival()
        waited = min(max(arrival - begun, 0.0), now - begun)
        meter.wait += waited
        meter.waited[last] += waited
        meter.comm += now - begun - waited
        meter.bytes_sent += self._sent
        meter.bytes_received += self._sent


@final
class Nothing:
    """The handle of something that is over."""

    def done(self) -> bool:
        """Whether `wait` would return at once: yes."""
        return True

    def wait(self) -> None:
        """Return."""


DONE: Final = Nothing()


@final
class Stream:
    """What one rank has started, in its order; shared by its communicators.

    Attributes
    ----------
    last : Operation or None
        What must be over before the next one begins.
    """

    def __init__(self) -> None:
        self.last: Operation | None = None
        self._handles: list[SimulatedHandle] = []

    def add(self, operation: Operation, handle: SimulatedHandle) -> None:
        """Have `operation` come after all others."""
        self.last = operation
        self._handles = [*(earlier for earlier in self._handles if not earlier.over), handle]

    def drain(self) -> None:
        """Wait for all that was started."""
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.wait()
        self.last = None
