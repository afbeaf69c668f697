"""Comparisons on real workers: same data, same seed, one after another; and the models that come out of them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from distributed import Client

import leaks
import scaleml
from cluster.conftest import BATCH, EPOCHS, RATE, Problem
from cluster.harness import compare
from runtime import reference
from scaleml import SGD, AllReduce, LocalSGD, ParameterServer, Serial, Trial
from scaleml.models import Network
from scaleml.runtime import evaluation
from scaleml.runtime import gradient as gradients
from scaleml.runtime import training_loop as worker_loop
from scaleml.runtime.parameter_server import server_loop

COLUMNS = "strategy workers loss score time_s time_to_target_s samples_per_s speedup efficiency compute wait comm"
COLUMNS += " bytes_per_step staleness"  # as the design's section 2 has them
STRATEGIES = [Serial(), AllReduce(), ParameterServer("async"), Trial(LocalSGD(4), optimizer=SGD(0.25))]


@pytest.fixture(scope="module")
def held_out() -> tuple[Any, Any]:
    rng = np.random.default_rng(12)
    X = rng.standard_normal((90, 6))
    return X, (X @ np.array([1.0, -2, 3, 0, 0.5, 0]) > 0).astype(int)


@pytest.fixture(scope="module")
def comparison(client: Client, problem: Problem, held_out: Any) -> Any:
    with leaks.guard(sockets=False):
        return compare(problem, STRATEGIES, client=client, validation=held_out)


def by_label(comparison: Any, start: str) -> Any:
    return next(run for run in comparison.runs if run.label.startswith(start))


# What comes out.


def test_every_strategy_stands_in_the_table_under_its_label(comparison: Any) -> None:
    # A serial run with the rows an update and the rate of each of the others, and each with all cores.
    # A rate of one's own is nobody else's: it has a serial run beside it, with all the rows, for the mean moves by those.
    serial = [
        repr(Serial()),
        f"Serial(), SGD({RATE / 2:g}), batch_size={BATCH // 2}",
        f"Serial(), SGD(0.25), batch_size={BATCH}",
    ]
    if (os.cpu_count() or 1) > 1:
        whole = f"Serial(threads={comparison.runs[1].threads})"
        serial = [label for one in serial for label in (one, one.replace("Serial()", whole))]
        assert comparison.runs[1].threads == comparison.runs[0].cores
    labels = [*serial, "AllReduce()", repr(ParameterServer("async")), "LocalSGD(period=4), SGD(0.25)"]
    table = comparison.table()
    assert table["strategy"].tolist() == labels
    assert table["rows_an_update"].tolist()[-3:] == [BATCH, BATCH // 2, BATCH]
    assert table["learning_rate"].tolist()[-3:] == [RATE, RATE / 2, 0.25]
    assert set(COLUMNS.split()) <= set(table.columns)
    assert table["state"].tolist() == ["finished"] * len(labels)
    assert table["workers"].tolist() == [1] * (len(labels) - 3) + [2, 2, 2]
    numbers = table[[name for name in COLUMNS.split() if name != "strategy"]].astype(float)
    assert np.isfinite(numbers.drop(columns=["time_to_target_s", "speedup", "efficiency"])).all().all()
    assert (table[["compute", "wait", "comm"]].sum(axis=1) <= 1 + 1e-9).all()
    assert (table["bytes_per_step"] > 0).tolist() == [False] * (len(labels) - 3) + [True] * 3
    assert (table["staleness"][:-2] == 0).all()


def test_all_had_the_same_data_and_their_own_settings(comparison: Any, problem: Problem) -> None:
    for label, shards in ((repr(Serial()), 1), ("AllReduce", 2)):
        problem.check(by_label(comparison, label).params, shards)
    expected = reference.local(
        reference.Problem(problem.X, problem.y, (6, 1), "binary", shards=2),
        np.zeros(7),
        [reference.Sgd(0.25), reference.Sgd(0.25)],
        EPOCHS,
        BATCH,
        period=4,
    )
    np.testing.assert_allclose(by_label(comparison, "LocalSGD").params, expected, rtol=1e-9, atol=1e-12)
    assert by_label(comparison, "Parameter").model.score(problem.X, problem.y) > 0.8


def log_loss(params: Any, X: Any, y: Any) -> float:
    scores = X @ params[:-1] + params[-1]
    return float(np.mean(np.logaddexp(0, -scores * (2 * y - 1))))


def test_loss_and_score_are_those_of_the_held_out_data(comparison: Any, held_out: Any) -> None:
    X, y = held_out
    table = comparison.table()
    for run, loss, score in zip(comparison.runs, table["loss"], table["score"], strict=True):
        np.testing.assert_allclose(loss, log_loss(run.params, X, y), rtol=1e-9)
        assert score == np.mean((X @ run.params[:-1] + run.params[-1] > 0) == y)
        first = run.history.evaluations["loss"][0]  # before the first step: all parameters are 0
        np.testing.assert_allclose(first, np.log(2), rtol=1e-9)


def test_it_is_evaluated_often_enough_for_a_time_to_the_target(comparison: Any, problem: Problem) -> None:
    for run in comparison.runs:
        evaluations = run.history.evaluations
        # Twenty a run, but only where all ranks hold the same parameters: after each step, or each fourth.
        steps = EPOCHS * -(-len(problem.y) // BATCH)
        assert len(evaluations["loss"]) > min(20, steps // 4 if "LocalSGD" in run.label else steps) * 0.9
        assert (np.diff(evaluations["samples"]) >= 0).all()
        assert (np.diff(evaluations["time"]) >= 0).all()


def test_it_shows_in_a_notebook_a_terminal_and_a_file(comparison: Any, tmp_path: Path) -> None:
    assert isinstance(comparison.verdict, str)
    bundle = comparison._repr_mimebundle_()
    assert {"text/plain", "text/html", "image/png"} <= bundle.keys()
    assert "AllReduce()" in comparison.to_html(tmp_path / "comparison.html").read_text()
    assert "AllReduce()" in str(comparison)


def test_the_target_counts(client: Client, problem: Problem, held_out: Any) -> None:
    for target, reached in ((0.5, True), (1e-6, False)):
        found = compare(problem, [AllReduce()], client=client, validation=held_out, target=target)
        assert found.target == target
        assert found.table().attrs["target"] == target
        (run,), (seconds,) = found.runs, found.table()["time_to_target_s"]
        evaluations = run.history.evaluations
        held = np.lib.stride_tricks.sliding_window_view(evaluations["loss"], 3).mean(axis=1)
        below = np.flatnonzero((evaluations["loss"][:-2] <= target) & (held <= target))
        assert bool(len(below)) == reached
        if reached:
            # Between the last evaluation above it and the first below.
            assert evaluations["time"][below[0] - 1] <= seconds <= evaluations["time"][below[0]]
        else:
            assert not np.isfinite(seconds)


# The clock.


@pytest.mark.parametrize("strategy", [Serial(), AllReduce(), LocalSGD(2)])
def test_evaluations_are_outside_the_training_clock(
    threads: Client, problem: Problem, monkeypatch: pytest.MonkeyPatch, strategy: Any
) -> None:
    # An hour passes with each look at the held-out data, on a clock that all ranks share.
    late = [0.0]
    statistics = Network.statistics

    def slow(self: Network, *data: Any) -> Any:
        late[0] += 3600
        return statistics(self, *data)

    monkeypatch.setattr(Network, "statistics", slow)
    for module in (evaluation, gradients, server_loop, worker_loop):
        if hasattr(module, "clock"):
            monkeypatch.setattr(module, "clock", lambda: perf_counter() + late[0])
    (run,) = compare(problem, [strategy], client=threads, workers=2).runs[:1]
    assert run.state == "finished"
    assert late[0] >= 10 * 3600
    assert run.train_seconds < 3600
    assert run.ledger.wall.max() < 3600
    parts = sum(run.history[name].sum() for name in ("compute", "wait", "comm", "apply", "other"))
    assert parts < 3600


def test_the_rows_of_every_rank_add_up_to_its_clock(comparison: Any) -> None:
    for run in comparison.runs:
        history = run.history
        for rank in range(run.workers):
            mine = history["rank"] == rank
            parts = sum(history[name][mine].sum() for name in ("compute", "wait", "comm", "apply", "other"))
            np.testing.assert_allclose(parts, history["time"][mine].max(), rtol=0.02, atol=1e-4)


# The serial baseline.


@pytest.mark.parametrize(
    ("cores", "strategy", "labels"),
    [
        (1, Serial(), [repr(Serial())]),
        (3, Serial(), [repr(Serial()), "Serial(threads=3)"]),
        (
            3,
            Trial(Serial(), batch_size=50),
            [f"{Serial()!r}, batch_size=50", "Serial(threads=3), batch_size=50"],
        ),
        (3, Serial(threads=2), ["Serial(threads=2)"]),
        (3, AllReduce(), ["AllReduce()"]),
    ],
)
def test_serial_runs_twice_where_a_host_has_more_cores_than_a_worker_has_threads(
    threads: Client, problem: Problem, monkeypatch: pytest.MonkeyPatch, cores: int, strategy: Any, labels: list[str]
) -> None:
    def facts(client: Client, addresses: Any, workers: Any) -> dict[str, Any]:
        return {address: {"cores": cores} for address in addresses}

    monkeypatch.setattr("scaleml.api.contenders.hosts_of", facts)
    found = compare(problem, [strategy], client=threads, epochs=1)
    assert [run.label for run in found.runs] == labels
    assert [run.threads for run in found.runs] == [
        int(re.findall(r"threads=(\d)", label + "threads=1")[0]) for label in labels
    ]
    assert [run.workers for run in found.runs] == [2 if strategy == AllReduce() else 1] * len(labels)
    if len(found.runs) == 2:
        np.testing.assert_array_equal(found.runs[0].params, found.runs[1].params)


# A trial's own settings.


def test_a_trial_has_its_own_settings_and_else_those_of_all(threads: Client, problem: Problem) -> None:
    trials = [
        Trial(AllReduce(), optimizer=scaleml.Adam(0.01)),
        Trial(AllReduce(), batch_size=10),
        Trial(AllReduce(), epochs=4),
        Trial(AllReduce(), workers=1),
        AllReduce(),
    ]
    found = compare(problem, trials, client=threads, workers=2)
    plans = [run.plan for run in found.runs]
    assert [plan.optimizer for plan in plans] == [scaleml.Adam(0.01), *[SGD(RATE)] * 4]
    assert [plan.batch_size for plan in plans] == [BATCH, 10, BATCH, BATCH, BATCH]
    assert [plan.epochs for plan in plans] == [EPOCHS, EPOCHS, 4, EPOCHS, EPOCHS]
    assert [run.workers for run in found.runs] == [2, 2, 2, 1, 2]
    assert [run.history["epoch"].max() for run in found.runs] == [2, 2, 4, 2, 2]
    labels = [run.label for run in found.runs]
    assert labels[1:] == [
        "AllReduce(), batch_size=10",
        "AllReduce(), epochs=4",
        "AllReduce(), workers=1",
        "AllReduce()",
    ]
    assert labels[0].startswith("AllReduce(), Adam(")
    assert len({plan.seed for plan in plans}) == 1


def test_on_run_sees_every_run_as_it_starts(threads: Client, problem: Problem) -> None:
    seen: list[tuple[Any, int, bool]] = []
    found = compare(
        problem,
        [AllReduce(), Trial(LocalSGD(2), epochs=5)],
        client=threads,
        on_run=lambda run, rows: seen.append((run, rows, all(other.over for other, *_ in seen))),
    )
    assert [run for run, *_ in seen] == list(found.runs)
    kept = 203 - round(203 * 0.25)
    assert [rows for _, rows, _ in seen] == [EPOCHS * kept, 5 * kept]
    assert all(alone for *_, alone in seen)  # one after another
