"""Which runs are one contender's, and what is left once one was deleted or renamed."""

from __future__ import annotations

import pytest

from scaleml.lab.kept_runs import LONGEST, keys_of, renamed, without
from scaleml.telemetry import Comparison
from scaleml.telemetry.place import Place
from scaleml.telemetry.recorded_run import RecordedRun
from telemetry_fakes import in_rounds, made

STRATEGIES = [("Serial()", 1, {"rate": 1000.0}), ("AllReduce()", 2, {"rate": 1800.0}), ("LocalSGD(period=8)", 2, {})]


def records(rounds=3):
    """What a tuned comparison leaves: in its tuning stage a contender had another place than after baselines were added."""
    runs = in_rounds(STRATEGIES, rounds)
    for number, (label, entry) in enumerate([("AllReduce()", 0), ("LocalSGD(period=8)", 1)]):
        tried = made(label, 2, place=Place("one", entry, "tuning", number))
        warm = made(label, 2, place=Place("one", entry + 1, "warm-up"))
        runs = [tried, *runs, warm]
    return tuple(RecordedRun.of(run) for run in runs)


def labels(runs):
    return sorted({run.label for run in runs})


def test_runs_are_told_apart_by_comparison_and_entry_or_by_their_number():
    alone, placed = made("Serial()"), in_rounds(STRATEGIES[:2], 2)
    runs = [alone, *placed, alone]
    assert keys_of(runs) == [("alone", 0), *[("one", 0), ("one", 1)] * 2, ("alone", 1)]
    for order in (runs, Comparison(runs).runs):
        assert labels(without([RecordedRun.of(run) for run in order], ("one", 1))) == ["Serial()"]
        assert len(without(order, ("alone", 1))) == len(runs) - 1


def test_deleting_takes_all_runs_of_one_contender_and_no_other():
    runs = records()
    left = without(runs, ("one", 1))
    assert labels(left) == ["LocalSGD(period=8)", "Serial()"]
    assert len(left) == len(runs) - 5, "three rounds, a warm-up and a trial"
    assert all(run in runs for run in left)
    assert [series.name for series in Comparison(left).series] == [
        "Serial()",
        "LocalSGD(period=8) on 2 workers",
    ]
    assert without(runs, ("two", 1)) == runs
    assert without((), ("one", 1)) == ()


def test_renaming_changes_the_label_of_all_runs_of_one_contender():
    runs = records()
    found = renamed(runs, ("one", 1), "  the\nbest ")
    assert labels(found) == ["LocalSGD(period=8)", "Serial()", "the best"]
    assert sum(run.label == "the best" for run in found) == 5
    assert labels(runs) == ["AllReduce()", "LocalSGD(period=8)", "Serial()"], "a pure function"
    changed = [(old, new) for old, new in zip(runs, found, strict=True) if old is not new]
    assert all(new.history is old.history and new.label == "the best" for old, new in changed)
    table = Comparison(found).table()
    assert list(table["strategy"]) == ["Serial()", "the best", "LocalSGD(period=8)"]


def test_a_name_outlives_the_file(tmp_path):
    found = Comparison(renamed(records(), ("one", 1), "the best"))
    loaded = Comparison.load(found.save(tmp_path / "runs.scaleml"))
    assert [row.strategy for row in loaded.rows] == ["Serial()", "the best", "LocalSGD(period=8)"]
    assert loaded.verdict == found.verdict
    assert "the best" in str(loaded)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (" \n", "at least one character"),
        ("x" * (LONGEST + 1), f"at most {LONGEST}"),
        ("Serial()", "another run has it"),
    ],
)
def test_names_that_tell_nothing_apart_are_refused(name, why):
    with pytest.raises(ValueError, match=why):
        renamed(records(), ("one", 1), name)


def test_a_contender_may_keep_its_name():
    assert labels(renamed(records(), ("one", 1), "AllReduce()")) == labels(records())
