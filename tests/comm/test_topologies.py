"""Every way of summing x lengths x numbers of ranks x kinds of link x placements, against a float64 sum."""

import queue
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np
import pytest

from scaleml.comm import Mismatch, inprocess, simulated
from scaleml.comm.collectives import TOPOLOGIES, choose, placement
from scaleml.comm.collectives.table import ALGORITHMS
from scaleml.comm.conventions import number_hosts, part
from scaleml.comm.transport.membership import Membership
from vectors import assert_same, total, vectors

LENGTHS = (0, 1, 7, 1001, 100_003)
RANKS = (1, 2, 3, 4, 5, 8)


def apart(group, hosts):
    """Let ranks of different hosts see no memory of each other, as on different machines: `hosts` has one number a rank."""
    group.mesh.hosts = tuple(hosts)
    group.members = Membership(group.mesh, group.ranks, group.members.number)
    group.hosts = group.members.hosts
    return group


def hosts_of(kind, size):
    return {"one": [0] * size, "each": list(range(size)), "two": [2 * r // size for r in range(size)],
            "uneven": [r % 3 for r in range(size)]}[kind]  # fmt: skip


def summed(size, n, dtype):
    """Return each rank's data, their sum, and how far from it they may be: each of size - 1 sums of floats rounds once."""
    data = vectors(size, n, dtype)
    if dtype == "int64":
        return data, np.sum(data, axis=0), 0
    return (
        data,
        np.sum(data, axis=0, dtype=np.float64),
        size * np.finfo(dtype).eps * np.abs(np.array(data, np.float64)).sum(axis=0),
    )


@pytest.mark.parametrize("algorithm", TOPOLOGIES)
@pytest.mark.parametrize("size", RANKS)
def test_every_algorithm_sums(algorithm, size, way):
    sums = {asked: summed(size, *asked) for asked in [*((n, "float32") for n in LENGTHS), (1001, "int64")]}

    def rank(group):
        shared = way["shared_memory"]
        for kind in ("one", "two", "uneven", "each") if algorithm == "hierarchical" and shared else ("one",):
            part = apart(group.split(0), hosts_of(kind if shared else "each", size))
            for n in LENGTHS:
                check(part, n, "float32")
            check(part, 1001, "int64")
            group.barrier()

    def check(group, n, dtype):
        data, exact, bound = sums[n, dtype]
        for x in (np.empty(n, dtype), group.buffer(n, dtype)) if n > 1001 else (np.empty(n, dtype),):
            x[:] = data[group.rank]
            group.allreduce(x, algorithm)
            if dtype == "int64":
                assert_same(x, exact)
            else:
                assert (np.abs(x - exact) <= bound).all()
            assert len(set(group.allgather_bytes(sha256(x).digest()))) == 1, "ranks have different bits"
            again = data[group.rank].copy()
            group.allreduce_start(again, algorithm).wait()
            assert_same(again, x)

    inprocess.run(size, rank, **way)


def test_direct_is_the_order_of_ranks_and_the_others_are_not():
    def rank(group):
        data = vectors(5, 1001, "float32")
        sums = {}
        for algorithm in TOPOLOGIES:
            sums[algorithm] = data[group.rank].copy()
            apart(group, [0, 0, 1, 1, 1])
            group.allreduce(sums[algorithm], algorithm)
        return sums

    sums = inprocess.run(5, rank, shared_memory=False)[0]
    assert_same(sums["direct"], total(vectors(5, 1001, "float32")))
    for algorithm in ("ring", "halving", "hierarchical"):
        assert (sums[algorithm] != sums["direct"]).any(), "an algorithm of its own has an order of its own"


@pytest.mark.parametrize("n", [100, 200_000])
def test_what_crosses_between_hosts(n):
    """Bytes that each rank really sends: a host of three sends its vector once, by its leader."""

    def rank(group):
        apart(group, [0, 0, 0, 1, 1, 1])
        x = np.ones(n, "float32")
        crossing = {}
        for algorithm in ("direct", "ring", "hierarchical"):
            sent = count_to(group, {r for r in range(6) if (r < 3) != (group.rank < 3)})
            group.allreduce(x, algorithm)
            crossing[algorithm] = sent() / x.nbytes
        return crossing

    found = inprocess.run(6, rank)
    crossing = {name: sum(each[name] for each in found) for name in found[0]}
    if n == 100:  # a vector from each of three to each of three, both ways
        assert crossing["direct"] > 17
        assert crossing["hierarchical"] < 4, "two vectors, with their headers"
    else:
        assert crossing["hierarchical"] == pytest.approx(2, rel=0.05)
        assert crossing["direct"] == pytest.approx(6, rel=0.05)
        assert crossing["ring"] == pytest.approx(2 * 2 * 5 / 6, rel=0.05)


def count_to(group, peers):
    """Return a function that says how many bytes went to `peers` since."""
    counts = []
    for peer in peers:
        link = group.mesh.channel.links[peer]
        send = type(link).send

        def counted(header, payload, link=link, send=send):
            sent = send(link, header, payload)
            counts.append(sent)
            return sent

        link.send = counted
    return lambda: sum(counts)


def test_ranks_that_take_different_ways_are_told(way):
    def rank(group):
        group.allreduce(np.zeros(100, "float32"), "ring" if group.rank else "halving")

    with pytest.raises(Mismatch, match=r"ring allreduce number .* halving allreduce|halving allreduce number .* ring"):
        inprocess.run(2, rank, **way)


def test_every_topology_has_an_algorithm():
    assert {"direct", *ALGORITHMS} == set(TOPOLOGIES), "the direct way is the communicator's own"


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("n", [7, 100_003])
def test_simulated_ranks_sum_with_the_bits_of_real_ones(topology, n):
    hosts, data = [0, 0, 1, 1, 1, 2], vectors(6, n, "float32")

    def rank(group, place=lambda group: group):
        group, x = place(group), data[group.rank].copy()
        group.allreduce(x, topology)
        return x.tobytes()

    real = inprocess.run(6, rank, lambda group: apart(group, hosts))
    assert set(real) == set(simulated.run(6, rank, hosts=hosts))
    assert len(set(real)) == 1


class QueueRanks:
    """Ranks that are threads with a queue for each two: the least that a topology can be run on."""

    def __init__(self, rank, ranks, hosts, queues):
        self.rank, self.size, self.hosts = ranks.index(rank), len(ranks), number_hosts([hosts[r] for r in ranks])
        self.ranks, self.whose, self.queues = ranks, hosts, queues

    def part(self, rank, n):
        return part(self.size, rank, n)

    def subset(self, ranks):
        chosen = [self.ranks[rank] for rank in ranks]
        return QueueRanks(self.ranks[self.rank], chosen, self.whose, self.queues)

    def send_receive(self, outgoing, dest, incoming, source, *, added=0, ahead=None):
        ready = len(outgoing) if ahead is None else ahead
        to, by = (self.queues[a, b] for a, b in ((self.me(), self.ranks[dest]), (self.ranks[source], self.me())))
        for block in outgoing[:ready]:
            to.put(block.copy())
        for index, place in enumerate(incoming):
            np.add(place, by.get(timeout=20), out=place) if index < added else np.copyto(place, by.get(timeout=20))
            for block in outgoing[ready + index : ready + index + 1]:
                to.put(block.copy())

    def me(self):
        return self.ranks[self.rank]

    def reduce(self, x, root=0):
        for peer in set(range(self.size)) - {root}:
            if self.rank in (root, peer):
                mine = ([], [x]) if self.rank == root else ([x], [])
                self.send_receive(mine[0], root, mine[1], peer, added=1)

    def broadcast(self, x, root=0):
        for peer in set(range(self.size)) - {root}:
            if self.rank in (root, peer):
                mine = ([x], []) if self.rank == root else ([], [x])
                self.send_receive(mine[0], peer, mine[1], root)

    def allreduce(self, x, topology="direct"):
        self.reduce(x)
        self.broadcast(x)


@pytest.mark.parametrize("topology", ALGORITHMS)
@pytest.mark.parametrize("hosts", [(0,), (0, 0), (0, 1, 2), (0, 0, 1, 1, 1), (0, 1, 0, 1, 2, 2, 2)], ids=str)
def test_a_topology_needs_nothing_of_a_communicator_but_its_protocol(topology, hosts):
    size = len(hosts)
    queues = {(a, b): queue.SimpleQueue() for a in range(size) for b in range(size)}
    with ThreadPoolExecutor(size) as threads:
        for n in (0, 5, 100_003):
            xs = [x.copy() for x in vectors(size, n, "int64")]
            expected = np.sum(xs, axis=0)
            ranks = [QueueRanks(rank, list(range(size)), hosts, queues) for rank in range(size)]
            for done in [threads.submit(ALGORITHMS[topology], *each) for each in zip(ranks, xs, strict=True)]:
                done.result()
            for x in xs:
                assert_same(x, expected)
    assert all(each.empty() for each in queues.values())


def test_who_is_where():
    def rank(group):
        return placement(group.hosts), placement(apart(group, [0, 1, 0, 1, 1]).hosts)

    for together, parted in inprocess.run(5, rank):
        assert together == (5,)
        assert parted == (2, 3)
    alone = inprocess.run(3, lambda group: placement(group.hosts), shared_memory=False)
    assert alone == [(1, 1, 1)] * 3


@pytest.mark.parametrize("nbytes", [0, 4, 4000, 64 * 1024, 64 * 1024 + 4, 1 << 20, 1 << 28])
def test_the_choice_is_one_of_the_table_and_fits_the_place(nbytes):
    assert choose(nbytes, (1, 1)) == choose(nbytes, (8,)) == "direct"
    for hosts in [(1,), (4,), (1, 1), (1,) * 8, (1,) * 16, (2, 2), (4, 4, 4), (3, 1)]:
        chosen = choose(nbytes, hosts)
        assert chosen in TOPOLOGIES
        assert (chosen == "hierarchical") <= (max(hosts) > 1 and len(hosts) > 1)
