"""Comparisons that go wrong: mistakes, failed runs, lost workers, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster

import leaks
import scaleml
from cluster.conftest import LOCAL, Problem, poll
from cluster.harness import compare
from scaleml import SGD, AllReduce, LinearModel, LocalSGD, ParameterServer, RunFailed, Serial, Trial
from scaleml.cluster.embedded import close_embedded

ROOT = Path(__file__).resolve().parents[2]


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
        problem,
        [AllReduce(), LocalSGD(2), AllReduce()],
        workers=2,
        faults=[scaleml.faults.Kill(rank=1, step=3)],
        on_worker_lost="raise",
    )
    assert [run.state for run in found.runs] == ["failed"] * 3
    assert all("rank 1 lost" in run.error for run in found.runs)
    assert [run.workers for run in found.runs] == [2, 2, 2]
    assert isinstance(found.verdict, str)
    close_embedded()
    assert poll(lambda: leaks.look(sockets=False).segments <= before, 5)


def test_a_run_that_cannot_start_ends_the_comparison_and_the_verdict_says_why(problem: Problem) -> None:
    """A worker goes between two runs: what has finished is kept."""
    with (
        LocalCluster(n_workers=2, processes=False, **LOCAL) as cluster,
        Client(cluster, set_as_default=False) as client,
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")

        def shrink(run: Any, rows: int) -> None:
            run.wait(60)
            client.retire_workers(list(client.scheduler_info()["workers"])[:1])

        planned: list[Any] = []
        found = compare(
            problem, [AllReduce(), LocalSGD(2)], client=client, workers=2, on_plan=planned.extend, on_run=shrink
        )
    assert planned == ["AllReduce()", "LocalSGD(period=2)"]
    assert [run.state for run in found.runs] == ["finished"]
    assert str(found.verdict).count("The comparison ended before LocalSGD(period=2): workers=2, but") == 1
    assert [str(warning.message) for warning in warned if "compar" in str(warning.message)] == []


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
        problem,
        [AllReduce(), LocalSGD(2), ParameterServer()],
        client=threads,
        epochs=10**9,
        on_run=lambda run, rows: run.stop(),
    )
    assert [run.state for run in found.runs] == ["stopped"]
    assert found.verdict.endswith("The comparison was stopped before LocalSGD(period=2) and ParameterServer('async').")
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
found = scaleml.compare(model, X, y, strategies, epochs=10**9, workers=2, repeats=1, on_run=tell)
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
