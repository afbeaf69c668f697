"""The simulated network: who is on which host, when each link is free, what is on its way, who has left."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import NamedTuple, final

from scaleml.comm.communicator import Message, RateLimiter
from scaleml.comm.errors import CorruptFrame, PeerLost
from scaleml.comm.simulation.costs import Costs
from scaleml.comm.simulation.operation import Operation
from scaleml.comm.simulation.scheduler import Scheduler, Task
from scaleml.comm.transport.frame import HEADER


class Delivery(NamedTuple):
    """A message under way, or not yet received; `source` is a root number."""

    sent: float
    arrival: float
    order: int
    source: int
    group: int
    nbytes: int
    corrupt: bool
    message: Message


class News(NamedTuple):
    """An announcement under way."""

    arrival: float
    number: int
    payload: bytes


@final
class Network:
    """All ranks' links.

    Attributes
    ----------
    inboxes, news : list by rank
        What is to be received, in the order in which it was sent.
    left : dict
        When ranks left.
    operations : dict
        Collectives under way, by communicator and number.
    """

    def __init__(self, tasks: list[Task], hosts: tuple[int, ...], costs: Costs) -> None:
        self.tasks = tasks
        self.hosts = hosts
        self.costs = costs
        self.scheduler = Scheduler(tasks)
        self.inboxes: list[list[Delivery]] = [[] for _ in tasks]
        self.news: list[list[News]] = [[] for _ in tasks]
        self.left: dict[int, float] = {}
        self.operations: dict[tuple[int, int], Operation] = {}
        self.emulations = [SimulatedEmulation(self, rank) for rank in range(len(tasks))]
        self._free: dict[tuple[int, int], float] = {}
        self._last: dict[tuple[int, int], float] = {}
        self._order = 0

    def travel(self, source: int, dest: int, nbytes: int) -> float:
        """Return when a frame with so many bytes, sent now, arrives: after those before it on this link."""
        link, now = (source, dest), self.tasks[source].clock.seconds
        latency, bandwidth = self.costs.link(self.hosts[source] == self.hosts[dest])
        gone = max(now, self._free.get(link, 0.0)) + nbytes / bandwidth
        self._free[link] = gone
        gone = max(gone, self.emulations[source].delayed(dest, nbytes))
        arrival = max(gone + latency, self._last.get(link, 0.0))
        self._last[link] = arrival
        return arrival

    def send(self, source: int, dest: int, group: int, nbytes: int, message: Message) -> None:
        """Send a message now."""
        arrival = self.travel(source, dest, nbytes)
        self._order += 1
        sent = self.tasks[source].clock.seconds
        corrupt = self.emulations[source].strikes(dest)
        self.inboxes[dest].append(Delivery(sent, arrival, self._order, source, group, nbytes, corrupt, message))
        self.tasks[source].context.meter.bytes_sent += HEADER + nbytes

    def first(self, rank: int, group: int, tag: int, sources: Iterable[int]) -> Delivery | None:
        """Return what comes first of what was sent to `rank`."""
        found = [
            delivery
            for delivery in self.inboxes[rank]
            if delivery.group == group and delivery.message.tag == tag and delivery.source in sources
        ]
        return min(found, key=lambda delivery: (delivery.arrival, delivery.order), default=None)

    def take(self, rank: int, delivery: Delivery) -> Message:
        """Receive a message that has arrived.

        Raises
        ------
        CorruptFrame
        """
        self.inboxes[rank].remove(delivery)
        context = self.tasks[rank].context
        if delivery.corrupt:
            at = delivery.message.step
            raise CorruptFrame(
                f"rank {rank} got a corrupt frame from rank {delivery.source} at its step {at}: "
                "its payload does not match its sum",
                rank=rank, peer=delivery.source, step=at,
            )  # fmt: skip
        context.meter.bytes_received += HEADER + delivery.nbytes
        context.raise_control(delivery.message.control)
        return delivery.message

    def announce(self, number: int, payload: bytes) -> None:
        """Send rank 0's announcement to all."""
        for dest in range(1, len(self.tasks)):
            self.news[dest].append(News(self.travel(0, dest, len(payload)), number, payload))

    def read_news(self, rank: int) -> None:
        """Take in all announcements that have arrived."""
        context, now = self.tasks[rank].context, self.tasks[rank].clock.seconds
        news = self.news[rank]
        while news and news[0].arrival <= now:
            context.announcements[news[0].number] = news[0].payload
            context.raise_control(news.pop(0).number)

    def leave(self, rank: int) -> None:
        """Have the others notice that `rank` is gone."""
        self.left.setdefault(rank, self.tasks[rank].clock.seconds)

    def departure(self, rank: int, observer: int) -> float:
        """Return when `observer` sees that `rank` has left: after all that it sent; infinity for not yet."""
        if rank not in self.left:
            return inf
        latency, _ = self.costs.link(self.hosts[rank] == self.hosts[observer])
        return max(self.left[rank] + latency, self._last.get((rank, observer), 0.0))

    def first_departure(self, ranks: Iterable[int], observer: int) -> float:
        """Return when `observer` sees the first of `ranks` leave; infinity for none."""
        return min((self.departure(rank, observer) for rank in ranks), default=inf)

    def wait(self, rank: int, ready: Callable[[], float], what: object, peer: int = -1, patient: bool = False) -> None:
        """Let time pass for `rank` until ``ready()``; it then knows what was announced."""
        self.scheduler.wait(self.tasks[rank], ready, what, peer, patient)
        self.read_news(rank)


@final
class SimulatedEmulation:
    """The bad links of one simulated rank."""

    def __init__(self, network: Network, rank: int) -> None:
        self.used = False
        self._network = network
        self._rank = rank
        self._shapes: dict[int, tuple[float, RateLimiter | None]] = {}
        self._corrupt: set[int] = set()

    def shape(self, peer: int, latency: float, rate: RateLimiter | None) -> None:
        """Hold back what goes to `peer`, from now on."""
        self._shapes[peer] = latency, rate

    def corrupt(self, peer: int, part: str) -> None:
        """Alter the next message to `peer`."""
        self._corrupt.add(peer)

    def drop(self, peer: int) -> None:
        """Cut the link: for both ends the other has left."""
        network, rank = self._network, self._rank
        context = network.tasks[rank].context
        network.leave(rank)
        raise PeerLost(
            f"rank {rank} lost rank {peer} at step {context.step}: their link was cut",
            rank=rank, peer=peer, step=context.step,
        )  # fmt: skip

    def delayed(self, peer: int, nbytes: int) -> float:
        """Return when so many bytes, which go to `peer` now, have left."""
        now = self._network.tasks[self._rank].clock.seconds
        latency, rate = self._shapes.get(peer, (0.0, None))
        return (now if rate is None else rate.book(now, nbytes)) + latency

    def strikes(self, peer: int) -> bool:
        """Whether the message that goes to `peer` now is to be altered."""
        struck = peer in self._corrupt
        self._corrupt.discard(peer)
        return struck
