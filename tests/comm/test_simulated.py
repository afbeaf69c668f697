"""The virtual clock's arithmetic: what the table of costs says is what calls take, and who was late is who was waited for."""

import numpy as np
import pytest

from scaleml.comm import simulated
from scaleml.comm.conventions import BLOCK
from scaleml.comm.simulated import Costs

RANKS = 8
LATENCY, BANDWIDTH = 1e-3, 1e6
COSTS = Costs(latency=LATENCY, bandwidth=BANDWIDTH, latency_between=10 * LATENCY, bandwidth_between=BANDWIDTH / 10)


def run(n, function, *args, **options):
    return simulated.run(n, function, *args, costs=options.pop("costs", COSTS), **options)


def near(value):
    return pytest.approx(value, rel=1e-12)


N = 960_000  # parts of all ranks, and of three leaders, are alike
FORMULAS = {
    "direct": 2 * LATENCY + 2 * 7 / 8 * N / BANDWIDTH,
    "ring": 14 * LATENCY + 2 * 7 / 8 * N / BANDWIDTH,
    "halving": 6 * LATENCY + 2 * 7 / 8 * N / BANDWIDTH,
}


@pytest.mark.parametrize("topology", FORMULAS)
def test_an_all_reduce_takes_what_the_formula_says(topology):
    def rank(group):
        group.allreduce(np.zeros(N, "uint8"), topology)
        return group.clock.now(), group.meter.comm, group.meter.wait, group.meter.bytes_sent

    seconds = near(FORMULAS[topology])
    assert run(RANKS, rank) == [(seconds, seconds, 0.0, 2 * N // 8 * 7)] * RANKS


def test_short_vectors_have_formulas_of_their_own():
    n = 1000

    def rank(group, topology):
        group.allreduce(np.zeros(n, "uint8"), topology)
        return group.clock.now()

    assert run(8, rank, "direct")[0] == near(LATENCY + 7 * n / BANDWIDTH)
    assert run(8, rank, "halving")[0] == near(3 * (LATENCY + n / BANDWIDTH))
    hop = LATENCY + n / BANDWIDTH
    assert run(5, rank, "halving")[0] == near(3 * hop), (
        "a guest to its host, one exchange (the other has come before), and back"
    )
    assert run(7, rank, "halving")[0] == near(4 * hop), "a guest whose host waits for two that wait"
    assert run(1, rank, "ring")[0] == 0


def test_between_hosts_the_slow_links_count():
    def rank(group, topology):
        group.allreduce(np.zeros(N, "uint8"), topology)
        return group.clock.now()

    slow, narrow = 10 * LATENCY, BANDWIDTH / 10
    assert run(RANKS, rank, "ring", hosts=range(RANKS))[0] == near(14 * slow + 2 * 7 / 8 * N / narrow)
    within = 2 * LATENCY + 2 * 3 / 4 * N / BANDWIDTH
    between = 4 * slow + 2 * 2 / 3 * N / narrow
    hosts = [rank // 4 for rank in range(12)]
    assert run(12, rank, "hierarchical", hosts=hosts)[0] == near(within + between + LATENCY + 3 * N / BANDWIDTH)


def test_a_ring_over_unlike_links_is_as_fast_as_its_blocks_come():
    """Each block leaves when the one before it has left, and what it depends on has come."""
    hosts = [0, 0, 0, 0, 1, 1, 2, 2]

    def rank(group):
        group.allreduce(np.zeros(N, "uint8"), "ring")
        return group.clock.now()

    came, free = np.zeros(RANKS), np.zeros(RANKS)  # at each rank, from its left; of its link to the right
    for _ in range(2 * (RANKS - 1)):
        far = np.array(hosts) != np.roll(hosts, -1)
        free = np.maximum(free, came) + N / RANKS / BANDWIDTH * np.where(far, 10, 1)
        came = np.roll(free + LATENCY * np.where(far, 10, 1), 1)
    assert run(RANKS, rank, hosts=hosts) == [near(came.max())] * RANKS


def test_long_parts_of_a_ring_are_handed_on_block_by_block():
    """Two blocks a part: the second is on its way while the first is handed on."""
    n = 3 * 2 * BLOCK

    def rank(group):
        group.allreduce(np.zeros(n, "uint8"), "ring")
        return group.clock.now()

    wire = 4 * 2 * BLOCK / BANDWIDTH
    assert wire < run(3, rank)[0] < wire + 4 * LATENCY


def test_blocks_that_are_added_cost_the_summing():
    def rank(group):
        x, y = np.zeros(1000, "uint8"), np.zeros(1000, "uint8")
        group.send_receive([x], 1 - group.rank, [y], 1 - group.rank, added=1)
        return group.clock.now(), group.meter.comm

    costs = Costs(latency=LATENCY, bandwidth=BANDWIDTH, summing=1000.0)
    seconds = near(LATENCY + 1000 / BANDWIDTH + 1.0)
    assert run(2, rank, costs=costs) == [(seconds, seconds)] * 2


def test_the_other_collectives():
    def rank(group):
        clock, times = group.clock, []

        def took(call):
            begun = clock.now()
            call()
            times.append(clock.now() - begun)

        x, byte = np.zeros(8000, "uint8"), np.zeros(100, "uint8")
        took(group.barrier)
        took(lambda: group.broadcast(x))
        took(lambda: group.allgather(x))
        took(lambda: group.reduce_scatter(x))
        took(lambda: group.allgather_bytes(bytes(group.rank)))
        took(lambda: group.exchange([byte] * RANKS, [byte.copy() for _ in range(RANKS)], 100))
        return times

    expected = [3 * LATENCY, *[LATENCY + 7 * 8000 / BANDWIDTH] * 2]
    expected += [LATENCY + 7000 / BANDWIDTH, LATENCY + sum(range(8)) / BANDWIDTH, LATENCY + 700 / BANDWIDTH]
    for times in run(RANKS, rank):
        assert times == [pytest.approx(seconds, rel=1e-9) for seconds in expected]


def test_summing_costs_where_the_table_says_so():
    def rank(group):
        group.reduce_scatter(np.zeros(8000, "uint8"))
        return group.clock.now()

    costs = Costs(latency=LATENCY, bandwidth=BANDWIDTH, summing=1000.0)
    assert run(RANKS, rank, costs=costs)[0] == near(LATENCY + 7000 / BANDWIDTH + 7.0)


def test_a_measured_formula_takes_the_place_of_ours():
    costs = Costs(formulas={"allreduce ring": lambda nbytes, hosts: nbytes * len(hosts)})

    def rank(group):
        group.allreduce(np.zeros(3, "uint8"), "ring")
        return group.clock.now()

    assert run(2, rank, costs=costs) == [6.0, 6.0]


def test_a_late_rank_makes_the_others_wait_exactly_that_long():
    late = 5

    def rank(group):
        group.clock.sleep(0.25)
        if group.rank == late:
            group.clock.sleep(1.5)
        group.allreduce(np.zeros(N, "uint8"), "ring")
        return group.clock.now(), group.meter

    cost = FORMULAS["ring"]
    for number, (now, meter) in enumerate(run(RANKS, rank)):
        waited = 0.0 if number == late else 1.5
        assert now == near(1.75 + cost)
        assert (meter.wait, meter.comm) == (waited, near(cost))
        assert meter.waited[late] == sum(meter.waited) == waited


def test_what_was_started_goes_on_meanwhile():
    def rank(group, computing):
        x = np.zeros(N, "uint8")
        handle = group.allreduce_start(x, "ring")
        second = group.allreduce_start(x, "ring")
        assert not handle.done()
        group.clock.sleep(computing - group.clock.now())
        handle.wait()
        first = group.clock.now()
        second.wait()
        return first, group.clock.now(), group.meter.comm

    cost = FORMULAS["ring"]
    first, both, lost = run(RANKS, rank, 1.0)[3]
    assert (first, both) == (near(cost), near(2 * cost)), "one after the other"
    assert lost == near(2 * cost - 1.0), "only what could not be hidden"
    first, both, lost = run(RANKS, rank, 100.0)[3]
    assert (first, both, lost) == (100.0, 100.0, 0.0)
