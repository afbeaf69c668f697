"""A collective of a topology under way: the ranks as its algorithm sees them, on the links of one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, final

from scaleml.arrays import Array
from scaleml.comm.collectives.table import ALGORITHMS
from scaleml.comm.communicator import Collectives
from scaleml.comm.transport import direct
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import Key
from scaleml.comm.transport.membership import Membership
from scaleml.comm.transport.streaming import send_receive_blocks


@final
class SocketCollective:
    """What is called here is part of one collective, and its frames all carry that one's key. See `Collectives`.

    Who has been heard once is not waited for any more: from then on it is the wire.
    """

    def __init__(self, members: Membership, channel: Channel, key: Key, heard: set[int]) -> None:
        self.rank: Final = members.rank
        self.size: Final = members.size
        self.hosts: Final = members.hosts
        self._members = members
        self._channel = channel
        self._key = key
        self._heard = heard

    def part(self, rank: int, n: int) -> tuple[int, int]:
        return self._members.part(rank, n)

    def subset(self, ranks: Sequence[int]) -> SocketCollective:
        members = self._members.subset(ranks)
        return SocketCollective(members, self._channel, self._key._replace(group=members.number), self._heard)

    def allreduce(self, x: Array, topology: str = "direct") -> None:
        if topology != "direct":
            ALGORITHMS[topology](self, x)
            return
        before = self._channel.blocked, self._channel.blocker
        direct.allreduce(self._members, self._channel, x, self._key)
        self._hear(self._members.peers, before)

    def reduce(self, x: Array, root: int = 0) -> None:
        before = self._channel.blocked, self._channel.blocker
        direct.reduce(self._members, self._channel, x, self._key, root)
        self._hear(self._members.peers, before)

    def broadcast(self, x: Array, root: int = 0) -> None:
        before = self._channel.blocked, self._channel.blocker
        direct.broadcast(self._members, self._channel, x, self._key, root)
        self._hear((self._members.ranks[root],), before)

    def send_receive(
        self,
        outgoing: Sequence[Array],
        dest: int,
        incoming: Sequence[Array],
        source: int,
        *,
        added: int = 0,
        ahead: int | None = None,
    ) -> None:
        members, channel = self._members, self._channel
        before = channel.blocked, channel.blocker
        to, by = members.ranks[dest], members.ranks[source]
        send_receive_blocks(members, channel, self._key, outgoing, to, incoming, by, added, ahead)
        if incoming:
            self._hear((by,), before)

    def _hear(self, peers: Sequence[int], before: tuple[float, int]) -> None:
        if self._heard.issuperset(peers):
            self._channel.blocked, self._channel.blocker = before
        self._heard.update(peers)


_: type[Collectives] = SocketCollective


def allreduce_by(topology: str) -> Callable[[Membership, Channel, Array, Key], None]:
    """Return what sums over ranks by a topology's algorithm.

    Raises
    ------
    KeyError
        If there is none of that name.
    """
    if topology == "direct":
        return direct.allreduce
    algorithm = ALGORITHMS[topology]
    return lambda members, channel, x, key: algorithm(SocketCollective(members, channel, key, set()), x)
