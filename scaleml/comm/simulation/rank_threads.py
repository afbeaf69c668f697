"""Threads of simulated ranks: a network of its own for so many ranks, from the start of its clocks until all are through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from math import inf
from typing import TypeVar

from scaleml.comm.communicator import OnStall
from scaleml.comm.conventions import number_hosts
from scaleml.comm.errors import root_cause
from scaleml.comm.simulation.costs import Costs
from scaleml.comm.simulation.network import Network
from scaleml.comm.simulation.scheduler import Task, VirtualClock
from scaleml.comm.transport.context import RankContext

T = TypeVar("T")


def on_ranks(
    hosts: Sequence[int],
    function: Callable[[Network, int], T],
    costs: Costs,
    timeout: float = inf,
    on_stall: OnStall | None = None,
) -> list[T]:
    """Call ``function(network, rank)`` for a rank on each of `hosts`, and return what the calls return.

    Raises
    ------
    BaseException
        The first one that was raised in a rank and is not just the echo of another rank's end. The others are aborted.
    """
    clocks = [VirtualClock() for _ in hosts]
    contexts = [RankContext(rank, len(hosts), 0, 0, timeout, clock) for rank, clock in enumerate(clocks)]
    for context in contexts:
        context.on_stall = on_stall
    tasks = [Task(context, clock) for context, clock in zip(contexts, clocks, strict=True)]
    network = Network(tasks, number_hosts(hosts), costs)
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def work(rank: int) -> None:
        network.scheduler.begin(tasks[rank])
        try:
            results[rank] = function(network, rank)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)
            for context in contexts:
                context.abort(f"rank {rank} failed")
        network.scheduler.end(tasks[rank])

    ranks = range(len(hosts))
    threads = [threading.Thread(target=work, args=(rank,), name=f"rank-{rank}", daemon=True) for rank in ranks]
    for thread in threads:
        thread.start()
    network.scheduler.start()
    for thread in threads:
        thread.join()
    if errors:
        raise root_cause(errors)
    return [results[rank] for rank in ranks]
