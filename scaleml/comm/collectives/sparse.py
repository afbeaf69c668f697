"""Sparse all-reduce: vectors that are zero but at some keys travel as keys and values, and come back as the sum at all of these.

Everybody gets everybody's, once over each wire, and adds them in the order of ranks: no index is missing from the sum that any rank
has, so nobody can do with less than the union. The order is that of the direct all-reduce, and so are the bits, whoever has sent
what to whom. Renggli et al. also sum on the way (recursive doubling, split all-gather), which saves bytes where ranks have many keys
in common; there the union is nearly a dense vector, and that is what is better sent.

Renggli, Ashkboos, Aghagolzadeh, Alistarh and Hoefler, SparCML: high-performance sparse communication for machine learning, SC 2019.
"""

from __future__ import annotations

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator

KEY = np.dtype(np.int32)


def sparse_allreduce(ranks: Communicator, keys: Array, values: Array, width: int = 1) -> tuple[Array, Array]:
    """Return the sum over the ranks of what each has at some keys, the same bits on all of them.

    Parameters
    ----------
    keys : (m,) int32 array
        Ascending, none twice; every rank has its own.
    values : (m * width + e,) array
        ``width`` items at each key, then ``e`` items of every rank. One dtype and one ``e`` on all ranks.
    width : int
        The same on all ranks.

    Returns
    -------
    keys : (u,) int32 array
        Those of all ranks, ascending.
    values : (u * width + e,) array
        The sums at these, then those of the further items.

    Raises
    ------
    Mismatch, PeerLost, PeerTimeout, CorruptFrame, Aborted
        As any collective.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.comm import simulated
    >>> def total(group):
    ...     keys = np.array([group.rank, 7], np.int32)
    ...     return [part.tolist() for part in sparse_allreduce(group, keys, np.array([1.0, 2.0, 3.0]))]
    >>> simulated.run(2, total)[0]
    [[0, 1, 7], [1.0, 1.0, 4.0, 6.0]]
    """
    if ranks.size == 1:
        return keys, values
    extra = len(values) - len(keys) * width
    mine = b"".join((values.data, keys.data))  # values first: there they are aligned
    parts = [_split(part, values.dtype, width, extra) for part in _gather(ranks, mine)]
    union = _union([part[0] for part in parts])
    sums = np.zeros(len(union) * width + extra, values.dtype)
    cut = len(union) * width
    table, rest = sums[:cut].reshape(-1, width) if width > 1 else sums[:cut], sums[cut:]
    for own, theirs in parts:
        end = len(own) * width
        table[np.searchsorted(union, own)] += theirs[:end].reshape(-1, width) if width > 1 else theirs[:end]
        rest += theirs[end:]
    return union, sums


def _gather(ranks: Communicator, mine: bytes) -> list[bytes]:
    """Return every rank's bytes; those of a host go once to each other host, where several ranks share one."""
    hosts = ranks.hosts
    count = max(hosts) + 1
    if count == 1 or count == ranks.size:
        return ranks.allgather_bytes(mine)
    mates = [rank for rank, host in enumerate(hosts) if host == hosts[ranks.rank]]
    leaders = [hosts.index(host) for host in range(count)]
    within = ranks.subset(mates)
    theirs = within.allgather_bytes(mine)
    packed = b""
    if ranks.rank == mates[0]:
        packed = _pack(
            [part for host in ranks.subset(leaders).allgather_bytes(_pack(theirs)) for part in _unpack(host)]
        )
    by_host = _unpack(within.allgather_bytes(packed)[0])
    places = sorted(range(ranks.size), key=lambda rank: (hosts[rank], rank))
    return [by_host[place] for place in np.argsort(places).tolist()]


def _pack(parts: list[bytes]) -> bytes:
    lengths = np.array([len(parts), *map(len, parts)], np.int64)
    return b"".join((lengths.tobytes(), *parts))


def _unpack(packed: bytes) -> list[bytes]:
    count = int(np.frombuffer(packed, np.int64, 1)[0])
    ends = np.cumsum(np.frombuffer(packed, np.int64, count, 8)) + 8 * (count + 1)
    return [packed[begin:end] for begin, end in zip([8 * (count + 1), *ends[:-1]], ends, strict=True)]


def _split(part: bytes, dtype: np.dtype, width: int, extra: int) -> tuple[Array, Array]:
    """Return the keys and the values that a rank has sent."""
    count, left = divmod(len(part) - extra * dtype.itemsize, width * dtype.itemsize + KEY.itemsize)
    if left:
        raise ValueError("a rank sent sparse values of another width or dtype: all ranks must call with the same")
    values = np.frombuffer(part, dtype, count * width + extra)
    return np.frombuffer(part, KEY, count, values.nbytes), values


def _union(ascending: list[Array]) -> Array:
    """Return all keys, each once; a stable sort takes runs that are sorted already as they are."""
    keys = np.concatenate(ascending)
    keys.sort(kind="stable")
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    return keys[new]
