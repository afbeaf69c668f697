"""What the ranks of a collective must agree on."""

from __future__ import annotations

from typing import NamedTuple

from .errors import Mismatch
from .frame import COLLECTIVE, Header

OPS = ("barrier", "allreduce", "broadcast", "allgather", "allgather_bytes", "reduce_scatter")
BARRIER, ALLREDUCE, BROADCAST, ALLGATHER, ALLGATHER_BYTES, REDUCE_SCATTER = range(len(OPS))


class Key(NamedTuple):
    """One collective of one group."""

    group: int
    sequence: int
    op: int
    dtype: int
    tag: int  # the number of items, where ranks must have the same

    def __str__(self) -> str:
        op = OPS[self.op] if self.op < len(OPS) else f"operation {self.op}"
        return f"{op} number {self.sequence} ({self.tag} items, dtype code {self.dtype})"

    def fits(self, header: Header, rank: int, peer: int, step: int) -> bool:
        """Whether a frame from `peer` belongs to it; the rest says who asks.

        Raises
        ------
        Mismatch
            If it belongs to another collective of this group.
        """
        if header.kind != COLLECTIVE or header.group != self.group:
            return False
        theirs = Key(header.group, header.sequence, header.op, header.dtype, header.tag)
        if theirs != self:
            raise Mismatch(
                f"rank {rank} is in {self} at step {step}, rank {peer} in {theirs} at step {header.step}: "
                "all ranks must call the same collectives in the same order with the same lengths",
                rank=rank, peer=peer, step=step,
            )  # fmt: skip
        return True
