"""Callbacks of ``train``, ``start`` and ``compare``: they hear of real runs from the start to the end, whatever that is."""

from __future__ import annotations

import _thread

import numpy as np
import pytest

import scaleml
from callbacks.scripted import Remembers
from embedded import embedded
from scaleml.callbacks import Tqdm
from scaleml.cluster.errors import RunFailed
from scaleml.faults import Crash

X = np.random.default_rng(0).standard_normal((400, 5), dtype=np.float32)
Y = (X[:, 0] > 0).astype(int)


class Follows(Remembers):
    """Also notes what of a run is there at its end."""

    every = 0.01

    def on_start(self, run):
        self.note("start", run.label, run.place, dict(run.parameters))

    def on_end(self, run):
        self.note("end", run.state, run.error, run.params)


def ran(function, *callbacks, **settings):
    embedded(2)
    settings = {"epochs": 3, "validation": 0.25, "workers": 2, **settings}
    return function(scaleml.LinearModel(), X, Y, callbacks=callbacks, **settings)


def test_all_of_a_run_is_told_before_train_returns():
    callback = Follows()
    run = ran(scaleml.train, callback, batch_size=100, seed=3)
    ((label, place, parameters),) = callback.of("start")
    assert (label, place) == ("AllReduce()", None)
    expected = {
        "strategy": "AllReduce()",
        "learning_rate": 0.1,
        "batch_size": 100,
        "epochs": 3,
        "seed": 3,
        "workers": 2,
    }
    assert expected.items() <= parameters.items()
    assert sorted(step for (steps,) in callback.of("rows") for step in steps) == sorted(run.history["step"])
    assert [step for (step,) in callback.of("evaluation")] == run.history.evaluations["step"].tolist()
    ((state, error, params),) = callback.of("end")
    assert (state, error) == ("finished", None)
    assert np.array_equal(params, run.params)
    assert callback.notes[0][0] == "start"
    assert callback.notes[-1][0] == "end"


class Steers(Follows):
    """Changes a live run, and ends it once that is told."""

    def on_evaluation(self, run, evaluation):
        if not self.of("evaluation"):
            run.update(learning_rate=0.01)
        super().on_evaluation(run, evaluation)

    def on_change(self, run, change):
        super().on_change(run, change)
        run.stop()


def test_a_callback_may_change_and_stop_its_run():
    callback = Steers()
    run = ran(scaleml.start, callback, epochs=100_000).wait()
    assert run.state == "stopped"
    assert not run.interrupted
    assert ("setting", "learning_rate=0.01") in callback.of("change")
    assert [state for state, *_ in callback.of("end")] == ["stopped"]


def test_of_a_run_that_fails_the_end_is_told_with_its_error():
    callback = Follows()
    with pytest.raises(RunFailed, match="rank 1"):
        ran(scaleml.train, callback, faults=[Crash(rank=1, step=2)])
    ((state, error, _),) = callback.of("end")
    assert state == "failed"
    assert "rank 1" in error


def test_after_ctrl_c_it_is_told_that_the_run_was_stopped():
    class Interrupts(Follows):
        def on_rows(self, run, rows):
            if not self.of("rows"):
                _thread.interrupt_main()
            super().on_rows(run, rows)

    callback = Interrupts()
    run = ran(scaleml.train, callback, epochs=100_000)
    assert (run.state, run.interrupted) == ("stopped", True)
    assert [state for state, *_ in callback.of("end")] == ["stopped"]


class Stuck(Follows):
    patience = 0.01

    def on_end(self, run):
        super().on_end(run)
        self.heard("never", times=1)  # until the deadline


def test_in_a_comparison_it_learns_whose_run_it_is_and_one_that_is_stuck_holds_up_a_single_run(monkeypatch):
    monkeypatch.setattr("callbacks.scripted.DEADLINE", 60.0)
    good, stuck = Follows(), Stuck()
    with pytest.warns(RuntimeWarning, match="callback Stuck: on_end had not returned 0.01 s after") as said:
        comparison = ran(scaleml.compare, good, stuck, strategies=[scaleml.Serial(), scaleml.AllReduce()], repeats=1)
    stuck.note("never")
    assert len(said) == 1
    assert [run.state for run in comparison.runs] == ["finished"] * len(comparison.runs)
    assert [(label, place) for label, place, _ in good.of("start")] == [
        (run.label, run.place) for run in comparison.runs
    ]
    assert {place.stage for _, place, _ in good.of("start")} == {"round"}
    assert len({place.entry for _, place, _ in good.of("start")}) == len(comparison.runs)
    assert len(good.of("end")) == len(comparison.runs)
    assert good.notes[-1] == ("comparison", comparison)
    assert comparison.name == comparison.runs[0].place.comparison
    assert (len(stuck.of("start")), stuck.of("comparison")) == (1, [])


@pytest.mark.parametrize(("progress", "wanted"), [(None, False), (True, True)])
def test_where_a_callback_shows_progress_train_does_not_unless_asked_to(monkeypatch, progress, wanted, tmp_path):
    pytest.importorskip("tqdm")
    shown = []
    monkeypatch.setattr("scaleml.api.train.Progress", lambda name, wanted: shown.append(wanted) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scaleml.train(scaleml.LinearModel(), X, Y, callbacks=[Tqdm()], progress=progress)
    assert shown == [wanted]
