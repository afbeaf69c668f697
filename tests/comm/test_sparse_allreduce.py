"""The sparse all-reduce: the bits of the direct one on whole vectors, over every communicator and any placement of ranks."""

import numpy as np
import pytest

from scaleml.comm import simulated
from scaleml.comm.collectives.sparse import sparse_allreduce

COLUMNS, EXTRA = 20_000, 3
FILLED = (0, 1, 300, 9_000)
"""Columns that a rank has: none, and more than go in one piece with their header."""


def part(rank, filled, width, dtype):
    """What a rank has: keys, their values and three more items; the first rank has no key at all now and then."""
    random = np.random.default_rng(rank)
    filled = 0 if rank == 0 and filled == 1 else filled + rank * (filled > 1)
    keys = np.sort(random.choice(COLUMNS, filled, replace=False)).astype(np.int32)
    return keys, random.standard_normal(filled * width + EXTRA).astype(dtype)


def check(group):
    for width, dtype in ((1, "float32"), (3, "float64")):
        for filled in FILLED:
            keys, values = part(group.rank, filled, width, dtype)
            whole = np.zeros(COLUMNS * width + EXTRA, dtype)
            cut = len(keys) * width
            whole[:-EXTRA].reshape(-1, width)[keys] = values[:cut].reshape(-1, width)
            whole[-EXTRA:] = values[cut:]
            union, sums = sparse_allreduce(group, keys, values, width)
            group.allreduce(whole)
            theirs = [part(rank, filled, width, dtype)[0] for rank in range(group.size)]
            np.testing.assert_array_equal(union, np.unique(np.concatenate(theirs)))
            np.testing.assert_array_equal(sums[-EXTRA:], whole[-EXTRA:])
            table = whole[:-EXTRA].reshape(-1, width)
            np.testing.assert_array_equal(sums[:-EXTRA].reshape(-1, width), table[union])
            assert (union.dtype, sums.dtype) == (np.int32, np.dtype(dtype))
    return union.tobytes() + sums.tobytes()


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_sums_have_the_bits_of_whole_vectors(size, run):
    assert len(set(run(size, check))) == 1, "ranks differ"


@pytest.mark.parametrize("hosts", [(0, 1, 0, 1, 2, 2, 2), (0, 0, 0, 1)], ids=str)
def test_by_hosts_the_order_is_that_of_ranks(hosts):
    assert len(set(simulated.run(len(hosts), check, hosts=list(hosts)))) == 1


def test_a_host_is_sent_what_its_ranks_want_once():
    def rank(group):
        keys = np.arange(1000, dtype=np.int32) + 1000 * group.rank
        sparse_allreduce(group, keys, np.ones(1000, np.float32))
        return group.meter.bytes_sent

    sent = simulated.run(6, rank, hosts=[0, 0, 0, 1, 1, 1])
    mine = 8 * 1000
    followers = [sent[rank] for rank in (1, 2, 4, 5)]
    assert max(followers) < 2.1 * mine, "to its two neighbours, and no one else"
    assert sent[0] < (2 + 3 + 2 * 6 + 0.1) * mine, "and the leaders each other, and all they know to their own"
