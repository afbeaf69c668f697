"""The virtual clock's arithmetic for messages: what comes first, what a link takes, and how waits end."""

from math import inf

import numpy as np
import pytest

from scaleml.comm import ANY, CorruptFrame, Deadlock, PeerLost, PeerTimeout, TokenBucket, simulated
from scaleml.comm.simulated import Costs

LATENCY, BANDWIDTH = 1e-3, 1e6
COSTS = Costs(latency=LATENCY, bandwidth=BANDWIDTH, latency_between=10 * LATENCY, bandwidth_between=BANDWIDTH / 10)


def run(n, function, *args, **options):
    return simulated.run(n, function, *args, costs=COSTS, **options)


def near(value):
    return pytest.approx(value, rel=1e-12)


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_takes_latency_and_bytes():
    def rank(group):
        if group.rank == 0:
            group.clock.sleep(2.0)
            group.send(bytes(5000), 1)
            return group.clock.now(), group.meter.comm
        group.recv(0)
        return group.clock.now(), group.meter.wait, group.meter.comm

    sender, receiver = run(2, rank)
    flight = LATENCY + 5000 / BANDWIDTH
    assert sender == (2.0, 0.0), "nobody waits for what has left"
    assert receiver == (near(2.0 + flight), 2.0, pytest.approx(flight, rel=1e-9))


def test_two_messages_on_one_link_go_one_after_the_other():
    def rank(group):
        if group.rank == 0:
            group.send(bytes(5000), 1)
            group.send(bytes(3000), 1)
            group.send(bytes(1000), 2)  # a link of its own
            return None
        group.recv(0)
        first = group.clock.now()
        if group.rank == 1:
            group.recv(0)
        return first, group.clock.now()

    _, one, other = run(3, rank)
    assert one == (near(LATENCY + 0.005), near(LATENCY + 0.008))
    assert other[0] == near(LATENCY + 0.001)


def test_anybody_is_who_comes_first():
    """Rank 3 sends long before rank 1, which runs first; rank 2's message is under way longest."""

    def rank(group):
        if group.rank == 0:
            group.clock.sleep(0.001)
            return [(group.recv(ANY).source, round(group.clock.now(), 6)) for _ in range(3)]
        group.clock.sleep({1: 0.5, 2: 0.1, 3: 0.2}[group.rank])
        group.send(bytes(1_000_000 if group.rank == 2 else 0), 0)
        return None

    assert run(4, rank)[0] == [(3, 0.201), (1, 0.501), (2, 1.101)]


def test_hosts_are_further_away():
    def rank(group):
        if group.rank == 0:
            for peer in (1, 2):
                group.send(bytes(1000), peer)
            return None
        group.recv(0)
        return group.clock.now()

    assert run(3, rank, hosts=[7, 7, 3])[1:] == [near(LATENCY + 0.001), near(10 * LATENCY + 0.01)]


def test_poll_waits_no_longer_than_told():
    def rank(group):
        if group.rank == 1:
            group.clock.sleep(1.0)
            group.send(b"", 0)
            return None
        times = [(group.poll(seconds=seconds), round(group.clock.now(), 9)) for seconds in (0.4, 0.0, 5.0, 5.0)]
        group.recv()
        return times

    look = COSTS.look
    assert run(2, rank)[0] == [
        (False, 0.4),
        (False, 0.4 + look),
        (True, 1.0 + LATENCY),
        (True, 1.0 + LATENCY),
    ]


def test_a_loop_of_looks_ends():
    def rank(group):
        if group.rank == 1:
            group.clock.sleep(0.001)
            group.send(b"", 0)
            return 0
        looks = 0
        while not group.poll():
            looks += 1
        return looks

    assert run(2, rank)[0] == pytest.approx(2000, abs=2)


def test_the_same_every_time():
    def rank(group):
        random = np.random.default_rng(group.rank)
        log = []
        for _ in range(20):
            group.clock.sleep(random.random())
            group.send(bytes(int(random.integers(10_000))), int((group.rank + 1 + random.integers(3)) % 4))
        while group.poll(seconds=10.0):
            message = group.recv()
            log.append((message.source, len(message.payload), group.clock.now()))
        return log, group.meter.wait, group.meter.comm

    first = run(4, rank)
    assert sum(len(log) for log, *_ in first) == 80
    assert run(4, rank) == first


def test_time_goes_by_in_order():
    """Whoever runs is the one whose clock is least."""
    seen = []

    def rank(group):
        for _ in range(50):
            group.clock.sleep(0.1 * (1 + group.rank))
            seen.append(group.clock.now())

    run(4, rank)
    assert seen == sorted(seen)


# --- memory, links and ends -------------------------------------------------------------------------------------------


def test_a_shared_vector_is_one_array():
    def rank(group):
        vector = group.shared_vector(3)
        vector += 1
        group.barrier()
        return vector

    first, *others = run(3, rank)
    assert first.tolist() == [3, 3, 3]
    assert all(other is first for other in others)


def test_bad_links():
    def rank(group):
        assert not group.is_emulated
        if group.rank == 0:
            emulation = group.emulation()
            emulation.shape(1, 0.5, TokenBucket(1000.0))
            group.send(bytes(1000), 1)
            emulation.shape(1, 0.0, None)
            emulation.corrupt(1, "payload")
            group.send(b"altered", 1)
            assert group.is_emulated
            with pytest.raises(PeerLost, match="rank 0 lost rank 1 at step 0: their link was cut"):
                emulation.drop(1)
            return None
        group.recv()
        now = group.clock.now()
        with pytest.raises(CorruptFrame, match="rank 1 got a corrupt frame from rank 0"):
            group.recv()
        with pytest.raises(PeerLost, match="rank 1 lost rank 0"):
            group.recv()
        return now

    assert run(2, rank)[1] == near(1.0 + 0.5 + LATENCY)


def test_bad_links_hold_up_collectives():
    def rank(group):
        if group.rank == 1:
            group.emulation().shape(2, 0.5, None)
        group.barrier()
        return group.clock.now()

    assert run(4, rank) == [0.5 + 2 * LATENCY] * 4


def test_a_deadlock_says_who_waits_for_what():
    def rank(group):
        group.step = 4
        if group.rank == 0:
            group.recv(1, tag=7)
        elif group.rank == 1:
            group.clock.sleep(2.0)
            group.allreduce(np.zeros(3))

    with pytest.raises(Deadlock) as caught:
        run(3, rank)
    assert "rank 0 at step 4 waits for a message with tag 7 from rank 1 since 0 s" in str(caught.value)
    assert "rank 1 at step 4 waits for allreduce number 1 (3 items" in str(caught.value)
    assert "since 2 s; through are ranks 2" in str(caught.value)


def test_a_timeout_is_one_of_virtual_time():
    stalls = []

    def on_stall(peer, step, waiting_for, seconds):
        stalls.append((peer, step, waiting_for, seconds))
        return len(stalls) < 3

    def rank(group):
        if group.rank == 1:
            group.clock.sleep(100.0)
            return None
        with pytest.raises(PeerTimeout, match=r"rank 0 waited 6.0 s for rank 1 at step 0, for a message with tag 5"):
            group.recv(1, tag=5)
        return group.clock.now()

    assert run(2, rank, timeout=2.0, on_stall=on_stall)[0] == 6.0
    assert [stall[3] for stall in stalls] == [2.0, 4.0, 6.0]
    assert stalls[0][:2] == (1, 0)


def test_a_pause_outlasts_the_timeout():
    def rank(group):
        assert group.timeout == 1.0
        if group.rank == 0:
            group.clock.sleep(50.0)
            group.announce(1, b"resume")
            return None
        return group.await_announcement(1, forever=True), group.clock.now(), group.meter.comm

    assert run(2, rank, timeout=1.0)[1][:2] == (b"resume", near(50.0 + LATENCY + 6 / BANDWIDTH))


def test_by_default_nobody_loses_patience():
    assert run(2, lambda group: group.timeout) == [inf, inf]
