"""The failure detector, and the supervisor that asks it: who is not heard, and who is to blame for it; no clock and no processes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.test_supervisor import feed
from scaleml.cluster.events import (
    Abort,
    Arrived,
    Conclude,
    Entered,
    Examine,
    Examined,
    Instruction,
    Left,
    RankFailed,
    Recover,
    Stalled,
    Tick,
    WorkerLost,
)
from scaleml.cluster.supervisor import Supervisor

ADDRESSES = ("tcp://a", "tcp://b", "tcp://c")
TIMEOUT = 4.0
STEP = 0.5
ALL = frozenset(range(3))


class Simulated:
    """Ranks on workers that may be stopped or busy, a scheduler that may be asleep, and the supervisor of all; on a made-up clock."""

    def __init__(self, *, recovers: bool = False, entered: bool = True, start_by: float = 1e9) -> None:
        self.machine = Supervisor(ADDRESSES, start_by, workers=3, recovers=recovers, timeout=TIMEOUT)
        self.now = 100.0
        self.said: list[Instruction] = []
        self.stopped: set[int] = set()
        self.busy: set[int] = set()
        self.hidden: set[int] = set()
        self.has_news = True
        if entered:
            self.tell(*(Entered(rank) for rank in range(3)))

    def tell(self, *events: Any) -> None:
        found = feed(self.machine, *events, now=self.now)
        self.said += found
        for one in found:
            if isinstance(one, Examine) and self.has_news:
                self.tell(*(Examined(rank, self.heartbeat(rank), self.process(rank)) for rank in one.ranks))

    def heartbeat(self, rank: int) -> float:
        return 0.0 if rank in self.stopped | self.busy else self.now

    def process(self, rank: int) -> Any:
        return "unknown" if rank in self.hidden else "stopped" if rank in self.stopped else "alive"

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            silent = self.stopped | self.busy
            self.tell(Tick(ALL - silent if self.has_news else frozenset()))

    @property
    def kinds(self) -> list[type]:
        return [type(one) for one in self.said if not isinstance(one, Examine)]


def test_a_stopped_rank_is_named_within_the_timeout_and_a_moment() -> None:
    ranks = Simulated()
    ranks.pass_time(60)
    assert ranks.said == [], "nobody asks about those who beat"
    ranks.stopped.add(1)
    ranks.pass_time(TIMEOUT)
    assert ranks.kinds == []
    ranks.pass_time(2.0)
    assert ranks.kinds == [Abort]
    ranks.pass_time(2.0)
    final = ranks.said[-1]
    assert isinstance(final, Conclude)
    assert final.error is not None
    assert final.error.startswith(
        "rank 1 on worker tcp://b stalled at step 0: it has not been heard for 6 s, and is silent to Dask as well"
    )
    assert "its process is stopped" in final.error


def test_who_waits_for_it_is_told_as_well() -> None:
    ranks = Simulated()
    ranks.stopped.add(1)
    ranks.pass_time(TIMEOUT)
    ranks.tell(Stalled(0, 1, 4, "an all-reduce", TIMEOUT))
    ranks.pass_time(4)
    assert "while rank 0 waited for it (an all-reduce)" in ranks.machine.cause


def test_a_stall_that_a_rank_tells_of_is_none_while_the_other_beats() -> None:
    ranks = Simulated()
    for _ in range(10):
        ranks.tell(Stalled(0, 1, 4, "an all-reduce", TIMEOUT), Stalled(2, -1, 4, "a gradient", TIMEOUT))
        ranks.pass_time(TIMEOUT)
    assert ranks.said == []


def test_a_long_step_is_no_stall_however_silent_its_process_is() -> None:
    ranks = Simulated()
    ranks.busy.add(1)
    ranks.pass_time(100 * TIMEOUT)
    assert ranks.kinds == []
    assert Examine((1,)) in ranks.said, "it was asked about"


def test_nobody_is_to_blame_while_the_scheduler_tells_nothing() -> None:
    for rank in range(3):
        ranks = Simulated()
        ranks.has_news = False
        ranks.hidden = {*ALL}
        ranks.pass_time(20 * TIMEOUT)
        ranks.has_news = True
        ranks.pass_time(20 * TIMEOUT)
        assert ranks.kinds == []
        ranks.stopped.add(rank)
        ranks.pass_time(4 * TIMEOUT)
        assert ranks.machine.stalled == {ADDRESSES[rank]}


def test_nobody_is_to_blame_for_the_time_in_which_the_client_slept() -> None:
    ranks = Simulated()
    ranks.pass_time(5)
    for _ in range(5):
        ranks.now += 3600.0
        ranks.tell(Tick())
    assert ranks.said == []


def test_where_nobody_sees_the_process_a_second_look_is_as_late_as_the_first() -> None:
    ranks = Simulated()
    ranks.hidden.add(1)
    ranks.busy.add(1)
    ranks.pass_time(2 * TIMEOUT)
    assert ranks.kinds == []
    ranks.busy.clear()
    ranks.pass_time(20)
    assert ranks.kinds == [], "its heartbeat came again"
    ranks.stopped.add(1)
    ranks.pass_time(2 * TIMEOUT + 2)
    assert "its process is stopped or hangs, or its host is out of reach" in ranks.machine.cause


@pytest.mark.parametrize("stopped", [{0, 1, 2}, {0}])
def test_those_who_are_stopped_are_lost_and_others_may_go_on(stopped: set[int]) -> None:
    ranks = Simulated(recovers=True)
    ranks.pass_time(10)
    ranks.stopped |= stopped
    ranks.pass_time(TIMEOUT + 2)
    for rank in ALL - stopped:
        ranks.tell(RankFailed(rank, "aborted", "told", 7), Left(rank, "suspended", 7, [[6, 0]]))
    assert ranks.kinds == [Abort, Recover]
    assert ranks.machine.stalled == ranks.machine.lost == {ADDRESSES[rank] for rank in stopped}
    woken = ADDRESSES[min(stopped)]
    ranks.tell(
        Left(0, "suspended", 9, [[8, 0]]), RankFailed(0, "it woke", "own", 9), Tick(frozenset({0})), WorkerLost(woken)
    )
    assert ranks.machine.ended[0] == "lost", "what it says when it wakes counts no more"
    assert f"rank {min(stopped)} on worker {woken} stalled at step" in ranks.machine.cause
    assert "it woke" not in ranks.machine.cause
    after = ranks.machine.recovered(("tcp://d", "tcp://e", "tcp://f"), 3)
    assert not after.stalled
    assert after.timeout == TIMEOUT


def test_who_is_stopped_during_a_start_is_named_though_all_had_arrived() -> None:
    ranks = Simulated(entered=False)
    ranks.tell(*(Arrived(rank) for rank in range(3)))
    ranks.stopped.add(1)
    ranks.pass_time(TIMEOUT + 4)
    assert "rank 1 on worker tcp://b stalled" in ranks.machine.cause
    short = Simulated(entered=False, start_by=100.0 + TIMEOUT)  # over before anybody can be found stalled
    short.tell(*(Arrived(rank) for rank in range(3)))
    short.stopped.add(1)
    short.pass_time(TIMEOUT + 2)
    assert "rank 1 on worker tcp://b did not enter in time: it has not been heard for 4 s" in short.machine.cause


LOOKS = st.sampled_from(["stopped", "alive", "gone", "unknown"])
MOMENTS = st.tuples(
    st.frozensets(st.integers(0, 2)),  # who is silent
    st.lists(st.tuples(st.integers(0, 2), LOOKS), max_size=2),  # what late looks say
    st.sampled_from([0.1, 0.5, 3.0, 1000.0]),
    st.sampled_from(
        [None, None, None, WorkerLost("tcp://a"), Left(2, "finished", 5), RankFailed(0, "lost 1", "peer", 5, 1)]
    ),
)


@settings(max_examples=200, deadline=None)
@given(moments=st.lists(MOMENTS, max_size=40), recovers=st.booleans(), beating=st.integers(0, 2))
def test_whatever_happens_it_ends_once_and_never_for_a_rank_that_beats(
    moments: list[Any], recovers: bool, beating: int
) -> None:
    ranks = Simulated(recovers=recovers)
    for silent, looks, seconds, event in moments:
        ranks.now += seconds
        ranks.tell(Tick(ALL - silent | {beating}), *(Examined(rank, 1.0, state) for rank, state in looks))
        if event is not None:
            ranks.tell(event)
        assert ADDRESSES[beating] not in ranks.machine.stalled
    said = len(ranks.said)
    ended = ranks.machine.over
    ranks.stopped = {*ALL}
    ranks.pass_time(2 * TIMEOUT + 40)
    kinds = ranks.kinds
    assert kinds.count(Abort) == 1
    assert kinds.count(Conclude) + kinds.count(Recover) == 1, "one end, and it is reached"
    assert kinds[-1] in (Conclude, Recover)
    assert not ended or len(ranks.said) == said
