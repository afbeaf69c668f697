"""The choice of where ranks go on after a loss: pure, for any survivors."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scaleml.cluster.placement import Placement
from scaleml.cluster.recovery import replace_lost, way_as_they_are, way_on
from scaleml.strategies import Layout

STEPS = st.dictionaries(st.integers(0, 6), st.integers(0, 3), max_size=3)


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.dictionaries(st.integers(0, n - 1), STEPS))))
def test_all_ranks_go_on_from_the_newest_point_that_they_or_their_buddies_have(case: tuple[int, Any]) -> None:
    ranks, points = case
    way = way_on(points, Layout(ranks))
    needed = [rank if rank in points else (rank + 1) % ranks for rank in range(ranks)]
    possible = [step for step in range(7) if all(step in points.get(rank, {}) for rank in needed)]
    assert way.step == max(possible, default=-1)
    if possible:
        assert way.sources == tuple(needed)
        assert way.commands == points[needed[0]][way.step]
    else:
        assert way.sources == (None,) * ranks
        assert way.commands == 0


@given(
    st.tuples(st.integers(2, 4), st.integers(0, 3)).flatmap(
        lambda sizes: st.tuples(st.just(Layout(*sizes)), st.sets(st.integers(0, sizes[0] - 1), max_size=sizes[0]))
    )
)
def test_ranks_with_a_pace_of_their_own_go_on_unless_all_workers_are_lost(case: tuple[Layout, set[int]]) -> None:
    layout, lost = case
    at = [*range(layout.workers), *(layout.beside(server) for server in range(layout.workers, layout.size))]
    servers = range(layout.workers, layout.size)
    standings = {
        rank: {
            "began": 10,
            "taken": [float(10 * rank + other) for other in range(layout.workers)],
            "bases": [0] * layout.workers,
            "step": 5 * rank,
            "commands": rank,
            "copies": [[server, server] for server in servers if layout.keeper(server) == rank],
        }
        for rank in range(layout.size)
        if at[rank] not in lost
    }
    way = way_as_they_are(standings, layout)
    assert way.is_exact == (len(lost) == layout.workers)
    for rank, source in enumerate(way.sources):
        if rank in standings:
            assert source == rank
        elif rank < layout.workers:
            assert source is None or source < layout.workers
            assert (source is None) == way.is_exact
        else:
            assert source == (layout.keeper(rank) if layout.keeper(rank) in standings and not way.is_exact else None)
    if not way.is_exact:
        assert way.taken == tuple(10.0 * max(standings) + other for other in range(layout.workers))
        assert way.commands == min(standings)
        assert way.level == 5 * max(rank for rank in standings if rank < layout.workers)
        assert all(layout.keeper(server) != layout.beside(server) for server in servers)


def facts(name: str, **resources: float) -> Any:
    return {"name": name, "resources": resources}


def placed(*addresses: str, resources: dict[str, float] | None = None) -> Placement:
    return Placement(Layout(len(addresses)), addresses, 1, resources or {})


def test_the_nannys_next_worker_takes_the_place_before_others_do() -> None:
    names = {"tcp://a": "0", "tcp://b": "1"}
    info = {"tcp://a": facts("0"), "tcp://c": facts("7"), "tcp://d": facts("1")}
    found = replace_lost(placed("tcp://a", "tcp://b"), info, names)
    assert found is not None
    assert found.addresses == ("tcp://a", "tcp://d")


def test_one_worker_takes_one_place_and_needs_the_resources() -> None:
    before = placed("tcp://a", "tcp://b", resources={"GPU": 1})
    info = {"tcp://c": facts("2"), "tcp://d": facts("3", GPU=1)}
    assert replace_lost(before, info, {}) is None, "of two only one is there"
    info["tcp://e"] = facts("4", GPU=2)
    found = replace_lost(before, info, {})
    assert found is not None
    assert sorted(found.addresses) == ["tcp://d", "tcp://e"]


def test_who_came_back_at_the_same_address_keeps_its_place() -> None:
    found = replace_lost(placed("tcp://a", "tcp://b"), {"tcp://a": facts("0"), "tcp://b": facts("1")}, {})
    assert found is not None
    assert found.addresses == ("tcp://a", "tcp://b")
