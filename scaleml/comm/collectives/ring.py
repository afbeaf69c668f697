"""The ring: each rank talks to its two neighbours alone, and sends no more than any other algorithm.

A part of the vector goes round once, summed on its way, then once more as the sum. It is cut into blocks that are handed on
as soon as they are summed, so that the wire is never idle. The order of each sum is that of the ring, from the
part's owner on.

Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009.
"""

from __future__ import annotations

from collections import deque

from scaleml.arrays import Array
from scaleml.comm.collectives.direct import BLOCK, fit
from scaleml.comm.conventions import bytes_of
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import Header, Payload
from scaleml.comm.transport.key import Key
from scaleml.comm.transport.membership import Membership
from scaleml.comm.transport.pump import Pump, Sink


def ring_allreduce(members: Membership, channel: Channel, x: Array, key: Key) -> None:
    """Sum `x` over the ranks, in place."""
    size, rank = members.size, members.rank
    if size == 1 or not x.size:
        return
    right, left = members.ranks[(rank + 1) % size], members.ranks[(rank - 1) % size]
    step = BLOCK // x.itemsize
    parts = [_blocks(*members.part(owner, x.size), step) for owner in range(size)]
    most = max(len(part) for part in parts)
    turns = 2 * (size - 1)  # in turn t we give part (rank - t) and take part (rank - t - 1)
    ready = deque((0, index) for index in range(len(parts[rank])))
    room = members.memory.scratch("block", x.dtype, min(step, x.size))
    writers = {right} if ready else set()

    def part_of(turn: int) -> list[tuple[int, int]]:
        return parts[(rank - turn) % size]

    def supply(peer: int) -> tuple[bytes, Payload] | None:
        if not ready:
            return None
        turn, index = ready.popleft()
        low, high = part_of(turn)[index]
        payload = x[low:high]
        return members.header(key, payload.nbytes, channel.checksum(payload), block=turn * most + index), payload

    def place(peer: int, header: Header) -> memoryview:
        turn, index = divmod(header.block, most)
        low, high = part_of(turn + 1)[index]
        return fit(members, peer, header, bytes_of(room[: high - low] if turn < size - 1 else x[low:high]))

    def arrived(peer: int, header: Header) -> None:
        turn, index = divmod(header.block, most)
        if turn < size - 1:
            low, high = part_of(turn + 1)[index]
            x[low:high] += room[: high - low]
        if turn + 1 < turns:
            ready.append((turn + 1, index))
            writers.add(right)

    count = sum(len(part_of(turn + 1)) for turn in range(turns))
    Pump(channel, key, writers, supply, {left: count} if count else {}, Sink(key, place, arrived)).run()


def _blocks(start: int, stop: int, step: int) -> list[tuple[int, int]]:
    return [(low, min(low + step, stop)) for low in range(start, stop, step)]
