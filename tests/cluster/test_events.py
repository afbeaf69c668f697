"""What ranks report, as Dask carries it."""

from __future__ import annotations

import msgpack
import pytest

from scaleml.cluster.events import (
    Applied,
    Arrived,
    Entered,
    Left,
    Marked,
    RankEvent,
    RankFailed,
    Recorded,
    Stalled,
    event_of,
    message_of,
    rank_event,
)

EVENTS: list[RankEvent] = [
    Arrived(1),
    Entered(0, "ring"),
    Entered(2),
    Left(1, "finished", 12),
    Left(1, "suspended", 12, [[8, 0], [11, 1]]),
    RankFailed(1, "ValueError: no such thing", "own", 7),
    RankFailed(0, "rank 0 lost rank 1", "peer", 7, peer=1),
    Stalled(0, -1, 4, "a push", 30.5),
    Applied(1, 3, "update", 40),
    Recorded(0, b"rows", [[0.5, 1.0]], [[1.0, 0.3, 0.9, 0.0]]),
    Marked(0, 1.5, "learning_rate=0.1", 12),
]


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_an_event_comes_back_as_it_was(event: RankEvent) -> None:
    message = message_of(event, "a-run", 3)
    carried = msgpack.loads(msgpack.dumps(message))
    assert carried == message  # nothing but plain values
    assert (carried["run"], carried["generation"]) == ("a-run", 3)
    assert event_of(carried) == event


def test_the_runtime_names_events_by_their_kind() -> None:
    assert rank_event("entered", {"rank": 1, "topology": "ring"}) == Entered(1, "ring")
    facts = {"rank": 0, "number": 2, "verb": "pause", "step": 9}
    assert rank_event("applied", facts) == Applied(0, 2, "pause", 9)
    with pytest.raises(KeyError):
        rank_event("bored", {"rank": 0})
    with pytest.raises(TypeError):
        rank_event("applied", {"rank": 0})
