"""Which faults a run may be told to suffer."""

from __future__ import annotations

from collections.abc import Sequence

from distributed import Client

from scaleml.cluster.endpoint import host_facts
from scaleml.cluster.host_facts import facts_of
from scaleml.cluster.placement import Placement
from scaleml.faults import Fault, Kill
from scaleml.strategies import Layout


def check_faults(faults: Sequence[Fault], layout: Layout, own_cluster: bool) -> None:
    """Raise for a fault that cannot be injected."""
    for fault in faults:
        if not isinstance(fault, Fault):
            raise TypeError(f"{fault!r} is no fault: use one of scaleml.faults, such as Slow(rank=1, factor=4)")
        ranks = f"there are {layout.size} ranks, 0 to {layout.size - 1}"
        if layout.servers:
            ranks += f", of which those from {layout.workers} on are servers"
        if fault.rank >= layout.size:
            raise ValueError(f"{fault!r}: {ranks}")
        to = getattr(fault, "to", None)
        if to is not None and to >= layout.size:
            raise ValueError(f"to={to} in {fault!r}: {ranks}")
        if isinstance(fault, Kill) and not (own_cluster or fault.allow_kill):
            raise ValueError(
                f"{fault!r}: only workers that scaleml started may be killed; pass client=None to use its own cluster, or "
                "Kill(..., allow_kill=True), in the lab Lab(..., allow_kill=True), if this cluster's workers may die"
            )


def check_victims(faults: Sequence[Fault], placement: Placement, client: Client) -> None:
    """Raise for the kill of a worker that lives in the client's own process."""
    victims = [fault for fault in faults if isinstance(fault, Kill)]
    if victims:
        here, facts = host_facts(), facts_of(client, placement.workers)
        for fault in victims:
            worker = facts[placement.addresses[fault.rank]]
            if (worker["boot"], worker["pid"]) == (here["boot"], here["pid"]):
                raise ValueError(f"{fault!r}: its worker is a thread of this very process, which is never killed")
