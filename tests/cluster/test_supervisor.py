"""The supervisor alone: events in, instructions out."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleml.cluster.events import (
    Abort,
    Applied,
    Arrived,
    ClientLost,
    Conclude,
    Entered,
    Examined,
    Left,
    RankFailed,
    Stalled,
    StartCancelled,
    Tick,
    WorkerLost,
)
from scaleml.cluster.supervisor import SETTLE, Supervisor

ADDRESSES = ("tcp://a", "tcp://b", "tcp://b")  # two workers, and a server beside the second
START_BY = 60.0
OWN = RankFailed(1, "ValueError: no such thing", "own", 7)
PEER = RankFailed(0, "rank 0 lost rank 1", "peer", 7, peer=1)
TOLD = RankFailed(2, "rank 2 was aborted", "told", 9)


def supervisor(**settings):
    return Supervisor(ADDRESSES, START_BY, workers=2, **settings)


def running():
    made = supervisor()
    feed(made, *(Entered(rank) for rank in range(3)))
    assert made.state == "running"
    return made


def feed(machine, *events, now=0.0):
    return [instruction for event in events for instruction in machine.handle(event, now)]


def conclusion(machine, *events, now=0.0):
    """Feed the events, then let time pass; return the one conclusion."""
    instructions = feed(machine, *events, now=now) + feed(machine, Tick(), Tick(), now=now + SETTLE + 0.01)
    concluded = [instruction for instruction in instructions if isinstance(instruction, Conclude)]
    assert len(concluded) == 1
    assert instructions[-1] == concluded[0]
    return concluded[0]


def test_it_runs_when_all_have_entered():
    machine = supervisor()
    assert feed(machine, Entered(2), Entered(0), Entered(0), Tick()) == []
    assert machine.state == "starting"
    assert feed(machine, Entered(1)) == []
    assert machine.state == "running"


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        (("finished", "finished", "finished"), "finished"),
        (("stopped", "stopped", "finished"), "stopped"),
        (("finished", "stopped", "finished"), "stopped"),
    ],
)
def test_it_ends_when_all_have_left_in_any_order(ends, state):
    for order in permutations(range(3)):
        machine = running()
        *first, last = [Left(rank, ends[rank], 12) for rank in order]
        assert feed(machine, *first, Tick(), now=1e6) == []
        assert feed(machine, last) == [Conclude(state)]
        assert machine.state == state


def test_a_pause_counts_when_all_that_train_are_at_it():
    machine = running()
    assert feed(machine, Applied(0, 1, "pause", 5)) == []
    assert machine.state == "running"
    assert not machine.has_applied(1)
    feed(machine, Applied(1, 1, "pause", 5))
    assert machine.has_applied(1)
    assert machine.state == "paused"
    assert machine.applied[1] == {0: 5, 1: 5}
    feed(machine, Applied(0, 2, "update", 5), Applied(1, 2, "update", 5))
    assert machine.state == "paused"
    feed(machine, Applied(1, 3, "resume", 5), Applied(0, 3, "resume", 5))
    assert machine.state == "running"
    assert not machine.has_applied(4)


def test_the_root_of_a_failure_is_named_in_any_order():
    words = "rank 1 on worker tcp://b failed at step 7: ValueError: no such thing"
    ends = [Left(rank, "failed", 7) for rank in range(3)]
    for order in permutations((OWN, PEER, TOLD)):
        machine = running()
        instructions = feed(machine, *order, *ends)
        assert isinstance(instructions[0], Abort)
        assert instructions[1:] == [Conclude("failed", words)]
        assert machine.state == "failed"


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ((PEER,), "rank 0 on worker tcp://a, which lost rank 1 on worker tcp://b failed at step 7"),
        ((TOLD, PEER), "rank 2 on worker tcp://b failed at step 9: rank 2 was aborted"),
        ((Left(0, "failed", 3),), "rank 0 on worker tcp://a failed at step 3"),
        ((Left(0, "failed", 3), Left(1, "finished", 9), Left(2, "finished", 9)), "rank 0 on worker tcp://a failed"),
    ],
)
def test_without_a_root_the_first_sign_is_told_after_a_moment(events, words):
    machine = running()
    *_, final = feed(machine, *events, now=5.0)
    assert isinstance(final, Abort), "the moment has not passed"
    assert feed(machine, Tick(), now=5.0 + SETTLE / 2) == []
    (concluded,) = feed(machine, Tick(), now=5.01 + SETTLE)
    assert concluded.state == "failed"
    assert concluded.error.startswith(words)


@pytest.mark.parametrize("order", list(permutations((WorkerLost("tcp://b"), PEER, Left(0, "failed", 7)))))
def test_a_lost_worker_is_the_root_whoever_notices_first(order):
    found = conclusion(running(), *order)
    assert found.state == "failed"
    assert found.error.startswith("ranks 1, 2 lost at step 7: the Dask worker tcp://b is gone")


def test_a_cluster_that_goes_as_a_whole_is_told_as_such():
    gone = [WorkerLost(address, 12) for address in dict.fromkeys(running().addresses)]
    found = conclusion(running(), *gone)
    assert found.error.startswith("ranks 0, 1, 2 lost at step 12: all Dask workers of the run are gone"), found.error


def test_a_worker_that_goes_after_its_ranks_have_left_is_no_loss():
    machine = running()
    assert feed(machine, Left(1, "finished", 9), Left(2, "finished", 9), WorkerLost("tcp://b"), WorkerLost("x")) == []
    assert feed(machine, Left(0, "finished", 9)) == [Conclude("finished")]


def test_a_worker_lost_while_starting_ends_the_start():
    assert "rank 0 lost at step 0" in conclusion(supervisor(), Entered(1), WorkerLost("tcp://a")).error


def test_a_lost_client_is_told_unless_something_deeper_is_known():
    assert conclusion(running(), ClientLost("the client closed")).error == "the client closed"
    assert "no such thing" in conclusion(running(), OWN, ClientLost("the client closed")).error


@pytest.mark.parametrize(
    ("busy", "words"),
    [({"tcp://b": ["sleep-1", "sleep-2"]}, "the worker is running sleep-1, sleep-2"), ({}, "threads are not free")],
)
def test_a_late_rank_is_named_with_what_occupies_its_worker(busy, words):
    machine = supervisor(busy=busy)
    feed(machine, Entered(0), Entered(2))
    assert feed(machine, Tick(), now=START_BY) == []
    found = conclusion(machine, Tick(), now=START_BY + 0.1)
    assert found.state == "failed"
    assert found.error.startswith("rank 1 on worker tcp://b did not enter in time")
    assert words in found.error


def test_who_is_in_cannot_be_late():
    assert feed(running(), Tick(), now=START_BY + 100) == []


def test_last_words_after_the_news_of_a_lost_worker_do_not_unsay_it():
    machine = running()
    found = conclusion(machine, WorkerLost("tcp://a"), *(Left(rank, "finished", 1) for rank in range(3)))
    assert found.state == "failed"
    assert "tcp://a is gone" in found.error


def test_the_others_are_told_once():
    machine = running()
    instructions = feed(machine, OWN, PEER, TOLD, WorkerLost("tcp://b"), ClientLost("closed"), Tick())
    assert [type(instruction) for instruction in instructions].count(Abort) == 1


RANKS = st.integers(0, 2)
FAILURES = st.one_of(
    st.builds(
        RankFailed, RANKS, st.just("bad"), st.sampled_from(["own", "frame", "peer", "told"]), RANKS, st.integers(-1, 2)
    ),
    st.builds(WorkerLost, st.sampled_from(sorted(set(ADDRESSES)))),
    st.builds(ClientLost, st.just("closed")),
    st.builds(Left, RANKS, st.just("failed"), RANKS),
)
OTHERS = st.one_of(
    st.builds(Entered, RANKS),
    st.builds(Left, RANKS, st.sampled_from(["finished", "stopped"]), RANKS),
    st.builds(Stalled, RANKS, st.integers(-1, 2), RANKS, st.just("it"), st.just(30.0)),
    st.builds(Applied, RANKS, st.integers(1, 3), st.sampled_from(["pause", "resume", "stop", "update"]), RANKS),
    st.builds(
        Examined, RANKS, st.sampled_from([None, 1.0, 2.0]), st.sampled_from(["stopped", "alive", "gone", "unknown"])
    ),
    st.builds(Tick, st.frozensets(RANKS)),
)


@settings(max_examples=400, deadline=None)
@given(
    events=st.lists(st.one_of(FAILURES, OTHERS), max_size=25), gaps=st.lists(st.floats(0, 5), min_size=25, max_size=25)
)
def test_any_sequence_of_events_has_one_end(events, gaps):
    machine, now, instructions = supervisor(), 0.0, []
    failed = False
    for event, gap in zip(events, gaps, strict=False):
        now += gap
        before = machine.over
        found = machine.handle(event, now)
        assert not (before and found), "an instruction after the end"
        instructions += found
        failed = failed or any(isinstance(instruction, Abort) for instruction in found)
    everyone = [Left(rank, "finished", 1) for rank in range(3)]
    instructions += feed(machine, *everyone, now=now) + feed(machine, Tick(), now=now + START_BY + SETTLE + 1)
    instructions += feed(machine, Tick(), now=now + START_BY + 2 * SETTLE + 2)
    assert machine.over
    kinds = [type(instruction) for instruction in instructions]
    assert kinds.count(Conclude) == 1
    assert kinds[-1] is Conclude
    assert kinds.count(Abort) == failed
    assert (machine.state == "failed") == failed
    if failed:
        assert instructions[-1].error


def test_a_late_rank_on_a_paused_worker_is_told_by_that():
    machine = supervisor(paused={"tcp://b"}, busy={"tcp://b": ["other"]})
    feed(machine, Arrived(0), Entered(0))
    error = conclusion(machine, Tick(), now=START_BY + 1).error
    assert "rank 1 on worker tcp://b did not enter in time: Dask has paused that worker" in error
    assert "its memory is nearly full" in error


def test_a_start_that_was_given_up_ends_stopped_once_its_ranks_have_gone():
    machine = supervisor()
    feed(machine, Entered(0))
    assert feed(machine, StartCancelled()) == [Abort("the run was stopped while it was starting")]
    told = [RankFailed(rank, "aborted", "told", 0) for rank in range(3)]
    assert feed(machine, *told, Left(0, "failed", 0), Left(1, "failed", 0)) == []
    assert feed(machine, Left(2, "failed", 0)) == [Conclude("stopped")]


def test_rank_0_speaks_for_all_where_another_cannot_confirm():
    machine = running()
    feed(machine, Applied(0, 1, "pause", 5), now=10.0)
    feed(machine, Tick(), now=10.0 + SETTLE / 2)
    assert not machine.has_applied(1)
    feed(machine, Tick(), now=10.01 + SETTLE)
    assert machine.has_applied(1)
    assert machine.state == "paused"
    feed(machine, Applied(1, 1, "pause", 5), now=12.0)
    assert machine.state == "paused"


def test_a_program_s_ranks_have_no_steps_and_its_culprit_is_the_rank_that_is_named():
    made = supervisor(counts_steps=False)
    feed(made, *(Entered(rank) for rank in range(3)))
    assert made.failure.culprit(made.ended) is None
    feed(made, RankFailed(0, "rank 0 lost rank 1", "peer", -1, peer=1))
    assert made.failure.culprit(made.ended) == 0  # as far as is known
    feed(made, RankFailed(1, "ValueError: no such thing", "own", -1), *(Left(rank, "failed", -1) for rank in range(3)))
    assert made.failure.culprit(made.ended) == 1
    killed = supervisor(counts_steps=False)
    feed(killed, *(Entered(rank) for rank in range(3)), PEER)
    *_, end = feed(killed, WorkerLost(ADDRESSES[1]), Left(0, "failed", -1))
    assert killed.failure.culprit(killed.ended) is None
    assert end.error.startswith("ranks 1, 2 lost: the Dask worker tcp://b is gone")
