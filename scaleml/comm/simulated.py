"""The simulated communicator: the same calls on a virtual clock, where messages and collectives take what a table says.

Ranks are threads of which one runs at a time, so that results and clocks are the same every time. Time passes by ``clock.sleep``
(computing) and by waiting; calls themselves take none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TypeVar

from scaleml.comm.communicator import OnStall
from scaleml.comm.simulation.costs import Costs
from scaleml.comm.simulation.handles import Stream
from scaleml.comm.simulation.network import Network
from scaleml.comm.simulation.rank_threads import on_ranks
from scaleml.comm.simulation.simulated_communicator import SimulatedCommunicator

__all__ = ["Costs", "SimulatedCommunicator", "run"]

T = TypeVar("T")


def run(
    n: int,
    function: Callable[..., T],
    *args: object,
    costs: Costs | None = None,
    hosts: Sequence[int] | None = None,
    timeout: float = inf,
    on_stall: OnStall | None = None,
) -> list[T]:
    """Call ``function(communicator, *args)`` on `n` simulated ranks and return what they return.

    Parameters
    ----------
    costs : Costs, optional
        What talking takes.
    hosts : sequence of int, optional
        The number of each rank's host; by default all share one.
    timeout : float
        Virtual seconds after which a wait asks `on_stall`, or fails.

    Raises
    ------
    Deadlock
        If every rank waits, and nothing is under way: says who waits for what.
    BaseException
        The first one that was raised in a rank and is not just the echo of another rank's end. The others are aborted.

    Examples
    --------
    >>> def late(group):
    ...     group.clock.sleep(group.rank)
    ...     group.barrier()
    ...     return group.clock.now(), group.meter.wait
    >>> run(3, late, costs=Costs(latency=0.25))
    [(2.5, 2.0), (2.5, 1.0), (2.5, 0.0)]
    """

    def work(network: Network, rank: int) -> T:
        return function(SimulatedCommunicator(network, rank, tuple(range(n)), 1, Stream()), *args)

    return on_ranks(hosts if hosts is not None else [0] * n, work, costs or Costs(), timeout, on_stall)
