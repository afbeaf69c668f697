"""A copy of a history follows it, also back to an earlier step."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from scaleml.telemetry import COLUMNS, History
from scaleml.telemetry.history_copy import Seen, news, take
from scaleml.telemetry.recovery import Recovery

AT = {name: i for i, name in enumerate(COLUMNS)}


def row(rank: int, step: int) -> np.ndarray:
    made = np.zeros(len(COLUMNS))
    made[[AT["rank"], AT["step"], AT["time"], AT["epoch"]]] = rank, step, step / 10, step / 5
    return made


def steps(history: History, first: int, last: int) -> None:
    for step in range(first, last):
        history.append_rows([row(0, step), row(1, step)])
        history.add_evaluation(step / 10, step, step, 1 / (step + 1), 0.5)


@pytest.mark.parametrize("looks", [1, 2, 3, 5])
def test_it_is_equal_after_every_look(looks: int) -> None:
    history, copy, seen = History(), History(), Seen()

    def look() -> None:
        nonlocal seen
        told = news(history, seen)
        take(copy, told)
        seen = told.seen
        assert_array_equal(copy.rows, history.rows)
        assert copy.evaluations["step"].tolist() == history.evaluations["step"].tolist()
        assert copy.changes == history.changes
        assert copy.recoveries == history.recoveries
        assert copy.epochs["number"].tolist() == history.epochs["number"].tolist()

    for turn, (first, last, back) in enumerate([(0, 20, None), (20, 30, 12), (13, 40, 38), (39, 50, 5), (6, 60, None)]):
        steps(history, first, last)
        history.mark(last / 10, f"turn {turn}", last)
        history.add_epoch(turn, 0.5, 0.5, False)
        if turn % looks == 0:
            look()
        if back is not None:
            history.rewind(back)
            history.note_recovery(Recovery(last / 10, "rank 1 replaced", last, back, {"worker": 0.4}))
    look()
    assert history["step"].max() == 59


def test_who_reads_on_after_a_rewind_sees_each_row_once() -> None:
    history = History()
    steps(history, 0, 10)
    _, cursor = history.since(0)
    steps(history, 10, 20)
    history.rewind(14)
    steps(history, 15, 30)
    rows, _ = history.since(cursor)
    assert sorted(rows[:, AT["step"]]) == sorted([*range(10, 30)] * 2)


def test_a_rewind_to_before_the_cursor_shows_only_what_came_after_it() -> None:
    history = History()
    steps(history, 0, 10)
    _, cursor = history.since(0)
    history.rewind(4)
    assert len(history.since(cursor)[0]) == 0
    steps(history, 5, 8)
    assert history.since(cursor)[0][:, AT["step"]].tolist() == [5, 5, 6, 6, 7, 7]
