"""Two ways of summing what has been encoded; each gives all ranks the same bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from scaleml.arrays import Array, namespace, to_numpy
from scaleml.comm.communicator import Communicator
from scaleml.compression.base import Codec, CodecContext
from scaleml.compression.error_feedback import residual

SMALL: Final = 64 * 1024
"""Bytes of a vector up to which it is one exchange that counts, as in the dense all-reduce."""


def gather(codec: Codec, payload: Array, group: Communicator) -> list[Array]:
    """Return the payloads of all ranks, in rank order: for what stays small when it is added up."""
    xp = namespace(payload)
    mine = to_numpy(payload)
    places = [mine if rank == group.rank else np.empty_like(mine) for rank in range(group.size)]
    group.exchange([mine] * group.size, places, len(mine), codec.code)
    return [payload if place is mine else xp.asarray(place) for place in places]


def sum_whole(
    codec: Codec,
    p: Array,
    out: Array,
    group: Communicator,
    state: dict[str, Array],
    context: CodecContext,
    factor: float,
) -> None:
    """Sum `p` over the ranks into `out`, by a codec whose sums are as long as what is summed; leave in `p` what was lost.

    Between two ranks, and for small vectors, everybody sends all of it to everybody; else owners sum.
    """
    if group.size > 2 and p.nbytes > SMALL:
        _sum_through_owners(codec, p, out, group, state, context, factor)
        return
    payloads = gather(codec, codec.encode(p, context, p), group)
    codec.decode(payloads[0], out, context.at(context.step, 0))
    one = namespace(p).empty_like(p)
    for rank in range(1, group.size):
        codec.decode(payloads[rank], one, context.at(context.step, rank))
        out += one


def _sum_through_owners(
    codec: Codec,
    p: Array,
    out: Array,
    group: Communicator,
    state: dict[str, Array],
    context: CodecContext,
    factor: float,
) -> None:
    """Sum `p` over the ranks into `out`, every part by the rank that owns it; leave in `p` what was lost.

    ::

        each rank:  encode every part of p, send it to its owner
        owner:      sum the decoded parts in rank order, and what its sums have lost so far; encode, send to all
        each rank:  decode the sums

    A rank sends 2 (n - 1) / n encoded vectors, however many ranks there are, where gathering would take n - 1.

    References
    ----------
    Seide et al., 1-bit stochastic gradient descent, Interspeech 2014.
    Tang et al., DoubleSqueeze, ICML 2019, arXiv:1905.05957: errors are fed back at both ends.
    """
    xp, ranks = namespace(p), range(group.size)
    parts = [slice(*group.part(rank, len(p))) for rank in ranks]
    mine = parts[group.rank]
    outgoing = [codec.encode(p[part], replace(context, part=rank), p[part]) for rank, part in enumerate(parts)]
    items = _room(codec, p)
    found = _exchange(codec, outgoing, [_room(codec, p[mine])] * group.size, items, group)

    total = residual(state, "residual of sums", p[mine])
    total *= factor
    one = xp.empty_like(total)
    for rank in ranks:
        codec.decode(found[rank], one, replace(context, rank=rank, part=group.rank))
        total += one
    sums = codec.encode(total, replace(context, part=group.size), total)

    found = _exchange(codec, [sums] * group.size, [_room(codec, p[part]) for part in parts], items, group)
    for rank, part in enumerate(parts):
        codec.decode(found[rank], out[part], replace(context, rank=rank, part=group.size))


def _room(codec: Codec, x: Array) -> int:
    return codec.nbytes(len(x), x.dtype)


def _exchange(codec: Codec, outgoing: list[Array], lengths: list[int], items: int, group: Communicator) -> list[Array]:
    """Send each rank its payload; return what came from each, with this rank's own in its place."""
    xp = namespace(*outgoing)
    places = [np.empty(length, np.uint8) for length in lengths]
    group.exchange([to_numpy(payload) for payload in outgoing], places, items, codec.code)
    return [outgoing[rank] if rank == group.rank else xp.asarray(place) for rank, place in enumerate(places)]
