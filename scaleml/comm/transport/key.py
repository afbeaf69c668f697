"""What the ranks of a collective must agree on."""

from __future__ import annotations

from typing import NamedTuple

from scaleml.comm.errors import Mismatch
from scaleml.comm.transport.frame import COLLECTIVE, Header

OPS = (
    "barrier", "allreduce", "broadcast", "allgather", "allgather_bytes", "reduce_scatter", "exchange",
    "ring allreduce", "halving allreduce", "hierarchical allreduce",
)  # fmt: skip
(
    BARRIER, ALLREDUCE, BROADCAST, ALLGATHER, ALLGATHER_BYTES, REDUCE_SCATTER, EXCHANGE, RING, HALVING, HIERARCHICAL
) = range(len(OPS))  # fmt: skip

CODECS = ("no compression", "FP16", "Int8", "OneBit", "TopK", "RandomK", "PowerSGD")
"""What the codec field of a header stands for; any other number is the caller's own."""


def codec_name(codec: int) -> str:
    """Return what a codec field stands for."""
    return CODECS[codec] if codec < len(CODECS) else f"codec {codec}"


class Key(NamedTuple):
    """One collective of one group."""

    group: int
    sequence: int
    op: int
    dtype: int
    tag: int  # the number of items, where ranks must have the same
    codec: int = 0  # how they are written

    def __str__(self) -> str:
        op = OPS[self.op] if self.op < len(OPS) else f"operation {self.op}"
        return f"{op} number {self.sequence} ({self.tag} items, dtype code {self.dtype}, {codec_name(self.codec)})"

    def fits(self, header: Header, rank: int, peer: int, step: int) -> bool:
        """Whether a frame from `peer` belongs to it; the rest says who asks.

        Raises
        ------
        Mismatch
            If it belongs to another collective of this group.
        """
        if header.kind != COLLECTIVE or header.group != self.group:
            return False
        theirs = header.group, header.sequence, header.op, header.dtype, header.tag, header.codec
        if theirs != self:
            raise self.mismatch(Key(*theirs), rank, step, peer, header.step)
        return True

    def mismatch(self, theirs: Key, rank: int, step: int, peer: int, their_step: int) -> Mismatch:
        """Return the error of a rank that is in this one while a peer is in another."""
        return Mismatch(
            f"rank {rank} is in {self} at step {step}, rank {peer} in {theirs} at step {their_step}: "
            "all ranks must call the same collectives in the same order with the same lengths and codecs",
            rank=rank, peer=peer, step=step,
        )  # fmt: skip
