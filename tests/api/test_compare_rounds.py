"""Rounds of a comparison on real workers: their order and seeds, budgets, stops, equal chances, tuning; and what is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

import scaleml
from cluster.conftest import BATCH, RATE, Problem
from cluster.harness import compare
from scaleml import SGD, AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial, Trial

# Rounds.


def test_rounds_alternate_share_seeds_and_come_after_a_warm_up(threads: Client, problem: Problem) -> None:
    seen: list[Any] = []
    found = compare(
        problem,
        [Serial(), AllReduce()],
        client=threads,
        repeats=3,
        seed=5,
        all_cores=False,
        on_run=lambda run, rows: seen.append(run),
    )
    places = [(run.place.stage, run.place.entry, run.place.round) for run in seen]
    assert places[:2] == [("warm-up", 0, 0), ("warm-up", 1, 0)]
    assert [entry for _, entry, _ in places[2:]] == [0, 1, 1, 0, 1, 0]
    assert [(run.plan.seed - 5, run.place.round) for run in seen[2:]] == [
        (0, 0),
        (0, 0),
        (1, 1),
        (1, 1),
        (2, 2),
        (2, 2),
    ]
    assert [(run.place.entry, run.place.round) for run in found.runs] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
        (1, 2),
    ]
    assert found.warm_ups == tuple(seen[:2])
    assert found.table()["rounds"].tolist() == [3, 3]


def test_a_budget_says_what_it_bought(threads: Client, problem: Problem) -> None:
    found = compare(problem, [AllReduce()], client=threads, repeats=None, budget=1e-6)
    assert len(found.runs) == 1
    assert "Measured in 1 round of 1 run," in found.verdict
    assert "of a budget of 1 us" in found.verdict
    found = compare(problem, [AllReduce()], client=threads, repeats=3, budget=1e-6)
    assert "the rest of 3 rounds did not fit in budget=1e-06" in found.verdict
    found = compare(problem, [AllReduce()], client=threads, repeats=None)
    assert 5 <= len(found.runs) <= 20


def test_a_skipped_run_ends_and_the_next_begins(threads: Client, problem: Problem) -> None:
    def skip(run: Any, rows: int) -> None:
        if run.place.stage == "round" and run.place.round == 1 and "AllReduce" in run.label:
            run.skip()

    found = compare(
        problem, [Serial(), AllReduce()], client=threads, repeats=3, epochs=500, all_cores=False, on_run=skip
    )
    skipped = [run for run in found.runs if run.skipped]
    assert [(run.place.entry, run.place.round, run.state) for run in skipped] == [(1, 1, "stopped")]
    assert len(found.runs) == 6
    assert found.ended is None
    assert found.table()["rounds"].tolist() == [3, 2]


def test_a_stop_in_a_round_leaves_what_there_is(threads: Client, problem: Problem) -> None:
    def stop(run: Any, rows: int) -> None:
        if run.place.stage == "round" and run.place.round == 2 and "AllReduce" not in run.label:
            run.stop()

    found = compare(
        problem, [Serial(), AllReduce()], client=threads, repeats=9, epochs=500, all_cores=False, on_run=stop
    )
    serial, scaled = found.table()["rounds"]  # the third round begins with the second contender
    assert scaled == 3
    assert serial in (2, 3), "a run that had reached the target when it was stopped counts"
    assert "The comparison was stopped in round 3" in found.verdict


def test_a_run_stopped_in_the_warm_up_ends_it_all(threads: Client, problem: Problem) -> None:
    many = np.tile(problem.X, (300, 1)), np.tile(problem.y, 300)
    found = scaleml.compare(
        scaleml.LinearModel(), *many, [AllReduce()], client=threads, batch_size=8, on_run=lambda run, rows: run.stop()
    )
    assert found.runs == ()
    assert "The comparison was stopped in its warm-up: no round was run." in found.verdict


# Equal chances.


def test_fewer_rows_an_update_get_a_rate_for_them_and_a_baseline(threads: Client, problem: Problem) -> None:
    server = ParameterServer("async")
    trials = [Serial(), server, Trial(server, optimizer=SGD(0.125)), AllReduce(), LocalSGD(2), Gossip()]
    found = compare(problem, trials, client=threads, workers=2, all_cores=False)
    table = found.table().set_index("strategy")[["rows_an_update", "learning_rate"]]
    assert table.loc[repr(server)].tolist() == [BATCH // 2, RATE / 2]
    assert table.loc[f"{server!r}, SGD(0.125)"].tolist() == [BATCH // 2, 0.125]
    for averaged in ("AllReduce()", "LocalSGD(period=2)", repr(Gossip())):
        assert table.loc[averaged].tolist() == [BATCH, RATE]
    twins = [tuple(row) for name, row in table.iterrows() if name.startswith("Serial()")]
    assert twins == [(BATCH, RATE), (BATCH // 2, RATE / 2), (BATCH // 2, 0.125)]


def test_scaled_strategies_learn_as_much_from_the_same_rows(threads: Client) -> None:
    """What equal chances are: one epoch at a small rate moves all of them about equally far."""
    random = np.random.default_rng(0)
    X = random.standard_normal((2000, 6))
    y = (X @ np.arange(6.0) > 0).astype(int)
    found = scaleml.compare(
        scaleml.LinearModel(penalty=None, dtype="float64"), X, y,
        [Serial(), AllReduce(), ParameterServer("async"), LocalSGD(4), Gossip(), Hogwild()],
        optimizer=SGD(0.02), epochs=1, batch_size=40, client=threads, workers=2, repeats=1, all_cores=False, validation=(X, y),
    )  # fmt: skip
    fallen = [run.history.evaluations["loss"][0] - run.history.evaluations["loss"][-1] for run in found.runs]
    np.testing.assert_allclose(fallen, fallen[0], rtol=0.1)


def test_rounds_differ_in_the_order_of_the_rows_and_in_what_is_held_out(threads: Client, problem: Problem) -> None:
    found = compare(problem, [Serial(), AllReduce()], client=threads, workers=2, repeats=3, all_cores=False)
    first = [
        [run.history.evaluations["loss"][1:].tolist() for run in found.runs if run.place.entry == i] for i in (0, 1)
    ]
    assert all(len({tuple(losses) for losses in rounds}) == 3 for rounds in first)
    alone = compare(problem, [Serial()], client=threads, workers=2, seed=1, all_cores=False).runs[0]
    np.testing.assert_array_equal(found.runs[1].params, alone.params)  # a round is a comparison of its seed


def test_adam_is_scaled_by_the_square_root(threads: Client, problem: Problem) -> None:
    server = ParameterServer("async")
    found = compare(problem, [server], client=threads, workers=2, optimizer=scaleml.Adam(0.01))
    assert found.table()["learning_rate"][0] == pytest.approx(0.01 / 2**0.5)


def test_tuning_gives_all_the_same_trials_and_the_winners_run_on_other_seeds(threads: Client, problem: Problem) -> None:
    found = compare(problem, [Serial(), AllReduce()], client=threads, tune=4, repeats=2, epochs=8, all_cores=False)
    per = [[run for run in found.trials if run.place.entry == entry] for entry in (0, 1)]
    assert [len(runs) for runs in per] == [4 + 2 + 1] * 2
    points = [[(run.plan.optimizer.learning_rate, run.plan.batch_size) for run in runs[:4]] for runs in per]
    assert points[0] == points[1]
    assert points[0][0] == (RATE, BATCH)
    assert len(set(points[0])) == 4
    assert [run.plan.epochs for run in per[0]] == [2] * 4 + [4] * 2 + [8]
    chosen = {(run.plan.optimizer.learning_rate, run.plan.batch_size) for run in found.runs if run.place.entry == 0}
    (point,) = chosen
    assert point in points[0]
    tried = {run.plan.seed for run in found.trials}
    assert tried.isdisjoint({run.plan.seed for run in found.runs})
    assert "Tuned: 4 settings for each on the same space (14 short runs," in found.verdict


# Pickles.


def test_a_comparison_survives_its_cluster(threads: Client, problem: Problem, tmp_path: Path) -> None:
    found = compare(problem, [Serial(), AllReduce()], client=threads, repeats=2)
    again = scaleml.Comparison.load(found.save(tmp_path / "found.scaleml"))
    assert str(again) == str(found)
    for run, record in zip(found.runs, again.runs, strict=True):
        np.testing.assert_array_equal(run.params, record.params)
        np.testing.assert_array_equal(run.model.predict(problem.X), record.model.predict(problem.X))
        assert run.history.to_frame().equals(record.history.to_frame())


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"repeats": 0}, ValueError, "repeats=0: must be a positive integer, the rounds to run"),
        ({"repeats": 2.5}, ValueError, "repeats=2.5: must be a positive integer"),
        ({"tune": 36}, ValueError, "tune=36: must be an integer from 1 to 35"),
        ({"budget": 0}, ValueError, "budget=0: must be a positive number, the seconds"),
        ({"all_cores": "no"}, TypeError, "all_cores='no': must be True or False"),
        ({"progress": "yes"}, TypeError, "progress='yes': must be True, False, or None"),
    ],
)
def test_what_breaks_a_rule_is_refused_at_once(problem: Problem, settings: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        compare(problem, [AllReduce()], **settings)
