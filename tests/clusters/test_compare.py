"""Comparisons on real workers: same data, same seed, one after another; and the models that come out of them."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import cloudpickle
import numpy as np
import pytest
import scipy.sparse
import scipy.special
from distributed import Client, LocalCluster
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier

import leaks
import scaleml
from clusters.conftest import BATCH, EPOCHS, RATE, Problem, poll
from engine import reference
from scaleml import MLP, SGD, AllReduce, LinearModel, LocalSGD, ParameterServer, RunFailed, Serial, Trial
from scaleml.engine import evaluation, gradients, server_loop, serving, worker_loop
from scaleml.engine.cluster import close_embedded
from scaleml.models import Network

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = "strategy workers loss score time_s time_to_target_s samples_per_s speedup efficiency compute wait comm"
COLUMNS += " bytes_per_step staleness"  # as the design's section 2 has them
STRATEGIES = [Serial(), AllReduce(), ParameterServer("async"), Trial(LocalSGD(4), optimizer=SGD(0.25))]
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests' folder


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two worker processes of one thread."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def threads() -> Iterator[Client]:
    """Two workers that are threads of this process: what is patched here is patched for them."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def held_out() -> tuple[Any, Any]:
    rng = np.random.default_rng(12)
    X = rng.standard_normal((90, 6))
    return X, (X @ np.array([1.0, -2, 3, 0, 0.5, 0]) > 0).astype(int)


def compare(problem: Problem, strategies: Any, **changed: Any) -> Any:
    settings = {**problem.settings(), "validation": 0.25, **changed}
    del settings["strategy"]
    return scaleml.compare(strategies=strategies, **settings)


@pytest.fixture(scope="module")
def comparison(client: Client, problem: Problem, held_out: Any) -> Any:
    with leaks.guard(sockets=False):
        return compare(problem, STRATEGIES, client=client, validation=held_out)


def by_label(comparison: Any, start: str) -> Any:
    (run,) = [run for run in comparison.runs if run.label.startswith(start)]
    return run


# What comes out.


def test_every_strategy_stands_in_the_table_under_its_label(comparison: Any) -> None:
    labels = [repr(Serial())]
    if (os.cpu_count() or 1) > 1:
        labels.append(f"Serial(threads={comparison.runs[1].threads})")
        assert comparison.runs[1].threads == comparison.runs[0].cores
    labels += ["AllReduce()", repr(ParameterServer("async")), "LocalSGD(period=4), SGD(0.25)"]
    table = comparison.table()
    assert table["strategy"].tolist() == labels
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
        below = np.flatnonzero(evaluations["loss"] <= target)
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
    for module in (evaluation, gradients, server_loop, serving, worker_loop):
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
    def facts(client: Client, addresses: Any) -> dict[str, Any]:
        return {address: {"cores": cores} for address in addresses}

    monkeypatch.setattr("scaleml.engine.compare.facts_of", facts)
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


# What goes wrong.


def test_a_strategy_that_fails_stands_with_its_error_and_the_others_go_on(client: Client, problem: Problem) -> None:
    with leaks.guard(sockets=False):
        found = compare(
            problem,
            [LocalSGD(2), Trial(AllReduce(), optimizer=SGD(1e200)), AllReduce()],
            client=client,
            model=LinearModel("squared_error", dtype="float64"),
            y=problem.X[:, 0],
            optimizer=SGD(0.01),
        )
    assert [run.state for run in found.runs] == ["finished", "failed", "finished"]
    assert re.search(r"rank \d.* step \d+.*(finite|loss .* is)", found.runs[1].error), found.runs[1].error
    assert found.table()["state"].tolist() == ["finished", "failed", "finished"]
    assert found.best is not found.runs[1]
    assert found.plot() is not None
    with pytest.raises(RunFailed):
        found.runs[1].wait()


def test_a_slow_rank_leaves_the_baseline_alone(client: Client, problem: Problem) -> None:
    found = compare(problem, [Serial(), AllReduce()], client=client, faults=[scaleml.faults.Slow(rank=1, factor=2)])
    assert {run.state for run in found.runs} == {"finished"}
    assert not found.runs[0].plan.faults
    assert found.runs[-1].plan.faults


def test_after_a_killed_worker_the_others_wait_for_its_replacement(problem: Problem) -> None:
    close_embedded()
    before = leaks.look(sockets=False).segments
    found = compare(
        problem, [AllReduce(), LocalSGD(2), AllReduce()], workers=2, faults=[scaleml.faults.Kill(rank=1, step=3)]
    )
    assert [run.state for run in found.runs] == ["failed"] * 3
    assert all("rank 1 lost" in run.error for run in found.runs)
    assert [run.workers for run in found.runs] == [2, 2, 2]
    assert isinstance(found.verdict, str)
    close_embedded()
    assert poll(lambda: leaks.look(sockets=False).segments <= before, 5)


MISTAKES: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "a name": ("allreduce", {}, TypeError, r"strategies='allreduce': must be a list such as"),
    "no list": (AllReduce(), {}, TypeError, r"strategies=AllReduce\(\): must be a list such as"),
    "an empty list": ([], {}, ValueError, r"strategies=\[\]: at least one is needed"),
    "a name in the list": ([AllReduce(), "serial"], {}, TypeError, r"'serial' is no strategy: pass objects such as"),
    "a class": ([AllReduce(), Serial], {}, TypeError, r"Serial'> is no strategy: pass objects such as Serial\(\)"),
    "no epochs": ([AllReduce()], {"epochs": 0}, ValueError, "epochs=0: must be a positive integer"),
    "epochs as text": ([AllReduce()], {"epochs": "5"}, ValueError, "epochs='5': must be a positive integer"),
    "a trial's epochs": ([AllReduce(), Trial(Serial(), epochs=0)], {}, ValueError, "epochs=0: must be a positive"),
    "a trial's batch": ([AllReduce(), Trial(Serial(), batch_size=0)], {}, ValueError, "batch_size=0: must be a posi"),
    "a trial's optimizer": ([AllReduce(), Trial(Serial(), optimizer="adam")], {}, TypeError, "optimizer='adam'"),  # type: ignore[arg-type]
    "a trial's workers": ([AllReduce(), Trial(LocalSGD(2), workers=0)], {}, ValueError, "workers=0: at least one"),
    "too many workers": ([AllReduce(), Trial(LocalSGD(2), workers=9)], {}, ValueError, "workers=9, but .* has 2"),
    "an unknown worker": ([AllReduce(), Trial(LocalSGD(2), workers=["x"])], {}, ValueError, r"\['x'\] are not in"),
    "too many servers": ([AllReduce(), ParameterServer(servers=8)], {}, ValueError, "8 servers for 7 parameters"),
    "a fault elsewhere": ([AllReduce(), Serial()], {"faults": [scaleml.faults.Slow(2, 2)]}, ValueError, "there are 2"),
    "a fault, no list": ([AllReduce()], {"faults": scaleml.faults.Slow(1, 2)}, TypeError, "faults=Slow.*a list"),
    "a target of text": ([AllReduce()], {"target": "0.3"}, ValueError, "target='0.3': must be .* a finite number"),
    "no target": ([AllReduce()], {"target": float("nan")}, ValueError, "target=nan: must be .* a finite number"),
    "no seed": ([AllReduce()], {"seed": -1}, ValueError, "seed=-1"),
    "bad data": ([AllReduce()], {"X": np.full((203, 6), np.nan)}, ValueError, "X is not finite at row"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_before_the_first_run(threads: Client, problem: Problem, name: str) -> None:
    strategies, changed, kind, words = MISTAKES[name]
    scheduler = threads.cluster.scheduler
    assert poll(lambda: not scheduler.tasks)  # an earlier run's, on their way out
    before = scheduler.transition_counter
    started: list[Any] = []
    with leaks.guard(sockets=False), pytest.raises(kind, match=words):
        compare(problem, strategies, client=threads, on_run=lambda run, rows: started.append(run), **changed)
    assert started == []
    assert scheduler.transition_counter == before


def test_an_error_in_on_run_ends_the_run_it_was_told_of(threads: Client, problem: Problem) -> None:
    started: list[Any] = []

    def display(run: Any, rows: int) -> None:
        started.append(run)
        raise ZeroDivisionError("in the display")

    with leaks.guard(sockets=False), pytest.raises(ZeroDivisionError, match="in the display"):
        compare(problem, [AllReduce(), LocalSGD(2)], client=threads, epochs=10**9, on_run=display)
    (run,) = started
    assert run.state == "stopped"


def test_a_run_that_is_stopped_is_the_last(threads: Client, problem: Problem) -> None:
    found = compare(
        problem, [AllReduce(), LocalSGD(2)], client=threads, epochs=10**9, on_run=lambda run, rows: run.stop()
    )
    assert [run.state for run in found.runs] == ["stopped"]
    assert found.runs[0].params is not None


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs deaf to it
import threading
import numpy as np
import scaleml
from scaleml import AllReduce, LocalSGD, Trial

X = np.random.default_rng(0).standard_normal((300, 4))
y = (X[:, 0] > 0).astype(int)

def tell(run, rows):
    def wait():
        if run.label == "LocalSGD(period=2)":
            while run.state == "starting":
                pass
            print(run.state, flush=True)
    threading.Thread(target=wait, daemon=True).start()

model = scaleml.LinearModel()
strategies = [Trial(AllReduce(), epochs=2), LocalSGD(2), AllReduce()]
found = scaleml.compare(model, X, y, strategies, epochs=10**9, workers=2, on_run=tell)
print(*[run.state for run in found.runs], *[run.params is not None for run in found.runs])
print(len(found.table()), found.runs[1].model.score(X, y) > 0.8)
print(scaleml.train(model, X, y, workers=2).state)
"""


def test_ctrl_c_returns_the_runs_so_far_and_leaves_the_cluster_usable(tmp_path: Path) -> None:
    before = leaks.look(sockets=False).segments
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(INTERRUPTED))
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert out.splitlines() == ["finished stopped True True", "2 True", "finished"]
    assert err == ""
    assert poll(lambda: leaks.look(sockets=False).segments <= before, 5)


# The trained model, against scikit-learn's estimators given the same coefficients.


def trained(threads: Client, model: Any, X: Any, y: Any) -> Any:
    return scaleml.train(model, X, y, client=threads, epochs=3, optimizer=SGD(0.05)).model


def check_classifier(model: Any, peer: Any, X: Any, scores: bool = True) -> None:
    np.testing.assert_array_equal(model.predict(X), peer.predict(X))
    np.testing.assert_allclose(model.predict_proba(X), peer.predict_proba(X), rtol=1e-9, atol=1e-12)
    if scores:
        np.testing.assert_allclose(model.decision_function(X), peer.decision_function(X), rtol=1e-9, atol=1e-12)
    assert model.score(X, peer.predict(X)) == 1.0


@pytest.mark.parametrize("labels", [["no", "yes"], [3, 5, 9]])
def test_a_linear_classifier_predicts_as_scikit_learns_does(threads: Client, problem: Problem, labels: Any) -> None:
    X, y = problem.X, np.asarray(labels)[np.argsort(np.argsort(problem.X[:, 0])) * len(labels) // 203]
    model = trained(threads, LinearModel(dtype="float64"), X, y)
    peer = LogisticRegression()
    outputs = 1 if len(labels) == 2 else len(labels)
    peer.coef_ = model.params[: 6 * outputs].reshape(6, outputs).T
    peer.intercept_, peer.classes_ = model.params[6 * outputs :], np.unique(y)
    check_classifier(model, peer, X)
    np.testing.assert_array_equal(model.classes, np.unique(y))
    expected = -np.mean(np.log(peer.predict_proba(X)[np.arange(203), np.searchsorted(peer.classes_, y)]))
    np.testing.assert_allclose(model.loss(X, y), expected, rtol=1e-9)
    weights = np.arange(203.0)
    np.testing.assert_allclose(model.score(X, y, weights), peer.score(X, y, weights), rtol=1e-12)


def test_a_network_predicts_as_scikit_learns_does(threads: Client, problem: Problem) -> None:
    X, y = problem.X, np.array(["a", "b", "c"])[np.argsort(np.argsort(problem.X[:, 1])) * 3 // 203]
    model = trained(threads, MLP((5,), dtype="float64"), X, y)
    peer = MLPClassifier((5,)).partial_fit(X, y, classes=["a", "b", "c"])
    w = model.params
    peer.coefs_ = [w[:30].reshape(6, 5), w[35:50].reshape(5, 3)]
    peer.intercepts_ = [w[30:35], w[50:53]]
    check_classifier(model, peer, X, scores=False)
    np.testing.assert_allclose(
        scipy.special.softmax(model.decision_function(X), axis=1), peer.predict_proba(X), rtol=1e-9
    )


@pytest.mark.parametrize("targets", [1, 2])
def test_a_regression_predicts_as_scikit_learns_does(threads: Client, problem: Problem, targets: int) -> None:
    X = problem.X
    y = X[:, 0] + 1 if targets == 1 else X[:, :2] * 2 - 1
    model = trained(threads, LinearModel("squared_error", dtype="float64"), X, y)
    peer = LinearRegression()
    coefficients = model.params[: 6 * targets].reshape(6, targets).T
    peer.coef_, peer.intercept_ = (
        (coefficients[0], model.params[6]) if targets == 1 else (coefficients, model.params[12:])
    )
    np.testing.assert_allclose(model.predict(X), peer.predict(X), rtol=1e-9, atol=1e-12)
    assert model.predict(X).shape == y.shape
    # For several targets as documented, over all together; scikit-learn takes the mean of the targets' own.
    together = 1 - np.sum((y - peer.predict(X)) ** 2) / np.sum((y - y.mean()) ** 2)
    np.testing.assert_allclose(model.score(X, y), peer.score(X, y) if targets == 1 else together, rtol=1e-6)
    assert model.classes is None


def test_it_predicts_many_rows_in_parts_and_takes_any_kind_of_X(threads: Client, problem: Problem) -> None:
    model = trained(threads, LinearModel(dtype="float64"), problem.X, problem.y)
    many = np.tile(problem.X, (400, 1))
    assert len(many) > 65536
    np.testing.assert_array_equal(model.predict(many), np.tile(model.predict(problem.X), 400))
    np.testing.assert_array_equal(model.predict(problem.X.tolist()), model.predict(problem.X))
    np.testing.assert_allclose(
        model.predict_proba(scipy.sparse.csc_matrix(problem.X)), model.predict_proba(problem.X), rtol=1e-12
    )
    assert model.predict(problem.X[:0]).shape == (0,)
    for wrong in (problem.X[:, :5], problem.X[0]):
        with pytest.raises(ValueError, match=r"this model was trained on 6 features: pass \(rows, 6\)"):
            model.predict(wrong)


def test_it_can_be_pickled_and_needs_no_dask(threads: Client, problem: Problem, tmp_path: Path) -> None:
    y = np.array(["no", "yes"])[problem.y]
    model = trained(threads, LinearModel(), problem.X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(problem.X), model.predict(problem.X))
    assert repr(again) == repr(model)
    (tmp_path / "model").write_bytes(pickle.dumps((model, problem.X)))
    code = """
    import pickle, sys
    model, X = pickle.load(open(sys.argv[1], "rb"))
    print(*model.predict(X))
    print([name for name in ("distributed", "dask") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "model")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [" ".join(model.predict(problem.X)), "[]"]


def test_a_run_that_left_no_parameters_has_no_model(threads: Client, problem: Problem) -> None:
    run = scaleml.start(**problem.endless(client=threads))
    try:
        with pytest.raises(RuntimeError, match=r"the run is \w+ and has no parameters; wait\(\) for its end"):
            _ = run.model
    finally:
        run.stop()
    assert run.model.predict(problem.X).shape == (203,)
