"""What a person clicks, and when: through the traits, without a browser, on real workers."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from dataclasses import dataclass, replace
from html import unescape

import pytest

import scaleml
from lab.clicking import LONG, PATIENCE, begun, finished, holds, settled, steps, words
from scaleml.models import Model
from scaleml.strategies import AllReduce, LocalSGD


def test_pause_resume_and_stop(lab):
    lab = lab(epochs=LONG)
    run = begun(lab)
    holds(lambda: not lab._steering.pause.disabled)
    lab._steering.pause.click()
    holds(lambda: run.state == "paused" and "is paused" in words(lab))
    assert lab._steering.pause.disabled
    lab._steering.resume.click()
    holds(lambda: run.state == "running")
    before = steps(run)
    holds(lambda: steps(run) > before)
    lab.stop_button.click()
    settled(lab)
    assert run.state == "stopped"
    assert len(lab.runs) == 1


def test_settings_change_in_mid_run(lab):
    lab = lab(epochs=LONG)
    run = begun(lab)
    holds(lambda: not lab._steering.change_rate.disabled)
    lab._steering.rate.value = 0.01
    lab._steering.change_rate.click()
    lab._steering.batch.value = 64
    lab._steering.change_batch.click()
    lab._steering.strategy.value = "LocalSGD"
    lab._steering.strategies["LocalSGD"].show(LocalSGD(5))
    lab._steering.change_strategy.click()
    holds(lambda: len(run.history.marks) == 3)
    assert [text for _, text in run.history.marks] == [
        "learning_rate=0.01",
        "batch_size=64",
        "strategy=LocalSGD(period=5)",
    ]


def test_a_worker_that_is_slowed_is_blamed(lab):
    lab = lab(scaleml.MLP((64,)), epochs=LONG)
    run = begun(lab)
    holds(lambda: not lab._steering.inject.disabled)
    lab._steering.rank.value = 1
    lab._steering.faults["Slow"]._fields[0].box.children[0].value = 20.0
    lab._steering.inject.click()
    holds(lambda: run.history.marks)
    assert "Slow(rank=1, factor=20.0" in run.history.marks[-1][1]
    said = re.compile(r"for rank 1, which computes (\d+)\.\d times as long")
    holds(lambda: (found := said.search(words(lab))) and int(found[1]) >= 5)


def test_kill_is_a_real_one_and_the_run_recovers(lab, cluster):
    lab = lab(epochs=LONG, strategies=[AllReduce(), LocalSGD(4)])
    before = set(cluster.run(os.getpid).values())
    run = begun(lab)
    holds(lambda: not lab._steering.kill.disabled)
    lab._steering.rank.value = 1
    lab._steering.kill.click()
    holds(lambda: any(text.startswith("rank 1 replaced") for _, text in run.history.marks))
    holds(lambda: run.state == "running" and not lab._steering.skip.disabled)
    holds(lambda: "Rank 1 replaced: lost at step" in words(lab))
    holds(lambda: "rank 1 replaced: first new step after" in lab._board.recoveries.value)
    after = set(cluster.run(os.getpid).values())
    assert len(before - after) == 1
    lab._steering.skip.click()
    holds(lambda: len(lab.runs) == 2 and lab.runs[1].state == "running")
    lab.stop_button.click()
    settled(lab)
    assert run.state == "stopped"
    assert "rank 1 replaced" in unescape(lab._board.found.value)


def test_workers_of_the_user_are_not_killed(lab, monkeypatch):
    lab = lab(epochs=LONG)
    run = begun(lab)
    run._facts = replace(run._facts, own_cluster=False)
    holds(lambda: not lab._steering.kill.disabled)
    lab._steering.kill.click()
    holds(lambda: "may be killed" in words(lab))
    assert run.state == "running"


def test_stop_before_run_does_nothing(lab):
    lab = lab()
    lab.stop()
    holds(lambda: "Nothing is running." in words(lab))
    assert finished(lab).runs[0].state == "finished"


def test_stop_while_it_starts(lab):
    lab = lab(epochs=LONG)
    lab.run_button.click()
    lab.stop_button.click()
    settled(lab)
    assert all(run.state == "stopped" for run in lab.runs)
    assert lab._controller.error == ""


def test_ten_clicks_in_a_second_are_one(lab):
    lab = lab()
    for _ in range(10):
        lab.run_button.click()
    lab.wait(PATIENCE)
    assert len(lab.runs) == 1
    for _ in range(10):
        lab._steering.pause.click()
        lab.stop_button.click()
        lab._steering.resume.click()
    holds(lab._controller._orders.empty)
    assert finished(lab).runs[-1].state == "finished"


def test_clicks_while_a_cell_blocks(lab):
    lab = lab(epochs=LONG)
    begun(lab)
    # The main thread is in wait(), as a cell that blocks; the click comes on another, as on a sub-shell.
    clicks = threading.Thread(target=lab.stop_button.click)
    threading.Timer(0.2, clicks.start).start()
    assert lab.wait(PATIENCE).runs[0].state == "stopped"
    clicks.join()


def test_a_callback_returns_at_once(lab):
    lab = lab(epochs=LONG)
    held = threading.Event()
    lab._controller._obey = lambda order: held.wait(PATIENCE)
    for button in (lab.run_button, lab.stop_button, lab.clear_button, lab._steering.inject, lab._steering.kill):
        button.click()
    assert not held.is_set(), "the controller's thread is busy, and yet the clicks returned"
    held.set()
    lab._controller._turn("idle")


@dataclass(frozen=True)
class Failing(Model):
    is_classifier = True
    dtype: str = "float32"

    def build(self, signature):
        raise ZeroDivisionError("this model cannot be built")


def test_a_failing_model_is_said_and_the_lab_lives(lab):
    lab = lab(Failing())
    lab.run_button.click()
    settled(lab)
    assert "ZeroDivisionError: this model cannot be built" in words(lab)
    assert lab.runs == ()
    lab._setup._given = (scaleml.LinearModel(), *lab._setup._given[1:])
    finished(lab)
    assert "ZeroDivisionError" not in words(lab)


def test_a_diverging_run_is_said_and_the_next_one_runs(lab):
    lab = lab(strategies=[scaleml.Trial(AllReduce(), optimizer=scaleml.SGD(1e30)), AllReduce()], epochs=5)
    finished(lab)
    assert [run.state for run in lab.runs] == ["failed", "finished"]
    words = unescape(lab._board.found.value)
    assert "not finite" in words or "over shard" in words


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda setup: setattr(setup.workers, "value", "1.5"), "workers '1.5': must be a whole number, 1 or more"),
        (lambda setup: setattr(setup.batch, "value", "0"), "batch 0: must be a whole number, 1 or more"),
        (lambda setup: setattr(setup.epochs, "value", "1e3"), "epochs '1e3': must be a whole number, 1 or more"),
        (lambda setup: setattr(setup.hidden, "value", "64; 32"), "hidden layers '64; 32': must be whole numbers"),
        (lambda setup: setattr(setup.rate, "value", "-1"), "learning rate -1: must be a positive number"),
        (lambda setup: setattr(setup.rate, "value", "0,1"), "learning rate '0,1': must be a positive number"),
        (lambda setup: setattr(setup.target, "value", "low"), "target loss 'low': must be a number"),
        (
            lambda setup: setattr(setup.rows[0].rate, "value", "0"),
            "AllReduce, own learning rate 0: must be a positive number",
        ),
        (lambda setup: setattr(setup.rows[0].tick, "value", False), "No strategy is ticked"),
    ],
)
def test_what_breaks_a_rule_is_said_and_nothing_starts(lab, change, said):
    lab = lab()
    change(lab._setup)
    lab.run_button.click()
    holds(lambda: said in words(lab))
    assert not lab.running
    with pytest.raises(ValueError, match=said.partition(" ")[0]):
        lab.start()


def test_what_is_typed_is_marked_and_said_until_it_is_mended_and_never_altered(lab):
    lab = lab()
    field = lab._setup.workers
    field.set_state({"value": "1.5"})  # as the page says it
    assert field.value == "1.5"
    assert "scaleml-refused" in field._dom_classes
    holds(lambda: "workers '1.5': must be a whole number, 1 or more" in words(lab))
    field.set_state({"value": "2"})
    assert "scaleml-refused" not in field._dom_classes
    holds(lambda: "must be" not in words(lab))


def test_a_refused_change_in_mid_run_leaves_the_run_alone(lab):
    lab = lab(epochs=LONG)
    run = begun(lab)
    holds(lambda: not lab._steering.change_batch.disabled)
    lab._steering.batch.value = "0"
    lab._steering.change_batch.click()
    holds(lambda: "batch 0: must be a whole number, 1 or more" in words(lab))
    assert run.state == "running"
    assert not run.history.marks


def test_ctrl_c_in_wait_stops_the_run_and_leaves_the_cluster_usable(lab, monkeypatch):
    lab = lab(epochs=LONG)
    run = begun(lab)
    waiting = lab._controller.wait

    def interrupted(timeout=None):
        monkeypatch.setattr(lab._controller, "wait", waiting)
        raise KeyboardInterrupt

    monkeypatch.setattr(lab._controller, "wait", interrupted)
    assert lab.wait().runs[0].state == "stopped"
    assert run.over
    lab._setup.epochs.value = 2
    finished(lab)


def test_waiting_without_blocking(lab):
    lab = lab().start()
    assert asyncio.run(lab.wait_async()).runs[0].state == "finished"


def test_a_wait_may_end_before_the_run(lab):
    lab = lab(epochs=LONG).start()
    with pytest.raises(TimeoutError, match="stop\\(\\) ends it"):
        lab.wait(0.01)
