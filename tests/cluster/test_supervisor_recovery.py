"""The supervisor alone, where others may go on after a loss: events in, instructions out."""

from __future__ import annotations

import pytest

from cluster.test_supervisor import OWN, START_BY, feed
from scaleml.cluster.events import (
    Abort,
    Applied,
    ClientBack,
    ClientLost,
    Conclude,
    Entered,
    Left,
    RankFailed,
    Recover,
    StartNextGeneration,
    Tick,
    WorkerLost,
)
from scaleml.cluster.supervisor import SETTLE, Supervisor


def recovering(*, entered=True, **more):
    made = Supervisor(("tcp://a", "tcp://b", "tcp://c"), START_BY, workers=3, recovers=True, **more)
    if entered:
        feed(made, *(Entered(rank) for rank in range(3)))
    return made


SUSPENDED = [
    RankFailed(0, "rank 0 lost rank 1", "peer", 7, peer=1),
    Left(0, "suspended", 7, [[4, 0], [6, 1]]),
    RankFailed(2, "rank 2 was aborted", "told", 7),
    Left(2, "suspended", 7, [[6, 1]]),
]


@pytest.mark.parametrize("first", [0, 2, 4])
def test_others_go_on_when_all_who_can_have_ended(first):
    """In whatever order the news of the worker and of the ranks come."""
    machine = recovering()
    news = [*SUSPENDED[:first], WorkerLost("tcp://b", 5), *SUSPENDED[first:]]
    *before, last = news
    said = feed(machine, *before)
    assert [type(one) for one in said] == [Abort]
    assert feed(machine, last) == [Recover()]
    assert machine.state == "recovering"
    assert machine.suspended == {0: "tcp://a", 2: "tcp://c"}
    assert machine.points == {0: {4: 0, 6: 1}, 2: {6: 1}}
    assert "rank 1 lost at step 7: the Dask worker tcp://b is gone" in machine.cause
    after = machine.recovered(("tcp://a", "tcp://d", "tcp://c"), 3)
    assert feed(after, *(Entered(rank) for rank in range(3))) == []
    assert after.state == "running"
    assert feed(after, WorkerLost("tcp://d", 9))[0] == Abort("the Dask worker tcp://d is gone")


def test_links_that_break_alone_are_made_again_after_a_moment():
    machine = recovering()
    feed(machine, *SUSPENDED, Left(1, "suspended", 7, [[6, 1]]))
    assert machine.state == "running"
    assert feed(machine, Tick(), now=SETTLE + 0.1) == [Recover()]


ALTERED = RankFailed(1, "rank 1 got a corrupt frame from rank 0", "frame", 7, peer=0)


def test_links_that_altered_a_frame_are_made_again_at_once():
    machine = recovering()
    *before, last = ALTERED, Left(1, "suspended", 7, [[6, 1]]), *SUSPENDED
    assert [type(one) for one in feed(machine, *before)] == [Abort]
    assert feed(machine, last) == [Recover()]
    assert machine.cause == "rank 1 on worker tcp://b failed at step 7: rank 1 got a corrupt frame from rank 0"
    assert machine.failure.culprit(machine.ended) == 1


def test_an_altered_frame_is_named_where_nobody_is_to_go_on():
    machine = Supervisor(("tcp://a", "tcp://b", "tcp://c"), START_BY, workers=3)
    feed(machine, *(Entered(rank) for rank in range(3)))
    told = [Left(rank, "failed", 7) for rank in range(3)]
    said = feed(machine, SUSPENDED[0], ALTERED, *told)
    assert said[-1] == Conclude("failed", machine.cause)
    assert "rank 1 on worker tcp://b failed at step 7: rank 1 got a corrupt frame" in machine.cause


def test_nobody_goes_on_where_that_is_not_wanted_or_something_else_is_wrong():
    lost = WorkerLost("tcp://b", 5)
    late = 31.0
    for machine, news in [
        (recovering(entered=False), [lost, Left(0, "failed", 0), Left(2, "failed", 0)]),
        (recovering(), [OWN, lost, *SUSPENDED]),
        (recovering(), [lost, *SUSPENDED[:2], ClientLost("it closed")]),
        (recovering(), [lost, *SUSPENDED[:2]]),  # rank 2 never ends
    ]:
        said = feed(machine, *news) + feed(machine, Tick(), now=late)
        assert Recover() not in said
        assert machine.state == "failed"


def test_ranks_that_waited_for_their_client_go_on_at_once():
    machine = recovering()
    back = ClientBack("the client had lost its connection")
    ends = [Left(rank, "suspended", 7, [[6, 1]]) for rank in range(3)]
    said = feed(machine, back, *ends)
    assert [type(one) for one in said] == [Abort, Recover]
    assert machine.cause == back.reason
    # A worker that was lost meanwhile is replaced.
    machine = recovering()
    assert feed(machine, back, ends[0], WorkerLost("tcp://b"), ends[2])[-1] == Recover()
    assert machine.suspended == {0: "tcp://a", 2: "tcp://c"}
    assert "rank 1 lost" in machine.cause


def test_one_that_left_may_be_gone_before_its_last_words_come():
    """All have handed over then, and a server, which just finishes, has what they leave."""
    machine = recovering()
    news = [WorkerLost("tcp://b"), Left(0, "switched", 7), Left(2, "finished", 7)]
    assert feed(machine, *news)[-1] == StartNextGeneration()


def test_a_pause_may_be_applied_before_the_last_rank_has_entered():
    machine = recovering()
    feed(machine, *(Applied(rank, 1, "pause", 5) for rank in range(3)))
    assert machine.state == "paused"
    feed(machine, WorkerLost("tcp://b", 5), *SUSPENDED)
    after = machine.recovered(("tcp://a", "tcp://d", "tcp://c"), 3)
    feed(after, Entered(0), Applied(0, 1, "pause", 5), Entered(1))
    assert after.state == "recovering"
    feed(after, Entered(2))
    assert after.state == "paused"
