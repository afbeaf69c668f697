"""Followers: callbacks hear of all that happens, in order, and nothing that they do hurts a run."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest

import scaleml
from callbacks.scripted import DEADLINE, Remembers, ScriptedRun, ended, follow
from scaleml.callbacks import Callback
from scaleml.callbacks.base import Evaluation
from scaleml.callbacks.followers import CallbackList
from scaleml.callbacks.news import in_order
from scaleml.telemetry import Comparison
from scaleml.telemetry.columns import AT, EVALUATION
from scaleml.telemetry.history import Change
from telemetry_fakes import row


def test_all_is_told_in_order_and_the_end_once(no_leaks):
    run, callback = ScriptedRun(), Remembers()
    followers = follow(run, callback)
    run.evaluation(0)
    run.rows(1, 2)
    assert callback.heard("start", "evaluation", "rows")
    run.history.mark(0.25, "learning_rate=0.2", step=2)
    run.rows(3)
    run.evaluation(3)
    assert callback.heard("change")
    assert ended(run, followers)
    kinds = [note[0] for note in callback.notes]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("start") == kinds.count("end") == 1
    assert [step for (steps,) in callback.of("rows") for step in steps] == [1, 2, 3]
    assert callback.of("evaluation") == [(0,), (3,)]
    assert callback.of("change") == [("setting", "learning_rate=0.2")]
    assert callback.notes[-1] == ("end", "finished")
    assert callback.threads == {"scaleml-callback-Remembers"}
    assert ended(run, followers), "who asks again need not wait"


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_a_run_that_is_over_at_once_is_told_from_start_to_end(state):
    run, callback = ScriptedRun(state=state), Remembers()
    run.rows(1)
    assert follow(run, callback).join()
    assert [note[0] for note in callback.notes] == ["start", "rows", "end"]
    assert callback.notes[-1] == ("end", state)


def test_that_it_is_paused_is_a_change():
    run, callback = ScriptedRun(), Remembers()
    followers = follow(run, callback)
    assert callback.heard("start")
    run.state = "paused"
    assert callback.heard("change")
    run.state = "running"
    assert callback.heard("change", times=2)
    ended(run, followers)
    assert callback.of("change") == [("state", "paused"), ("state", "runs again")]


def test_what_comes_together_is_told_by_the_clock_and_rows_are_cut_there():
    table = np.array([row(rank, step=step, time=step / 10) for step in (1, 2, 3, 4) for rank in (1, 0)])
    evaluations = [Evaluation(0.0, 0, 0, 0.7, 0.5), Evaluation(0.2, 16, 2, 0.6, 0.6)]
    changes = [Change(0.35, "later"), Change(0.3, "said late")]
    told = list(in_order(table, evaluations, changes))
    assert [type(event).__name__ for event in told] == [
        *("Evaluation", "dict", "Evaluation", "dict", "Change", "Change", "dict"),
    ]
    assert [event["step"].tolist() for event in told if isinstance(event, dict)] == [[1, 1, 2, 2], [3, 3], [4, 4]]
    assert [event.text for event in told if isinstance(event, Change)] == ["later", "said late"]
    assert told[1]["rank"].tolist() == [1, 0, 1, 0]
    assert list(told[1]) == list(AT)
    assert Evaluation._fields == EVALUATION


class Slow(Remembers):
    """Does not return from its first rows until it may."""

    def __init__(self):
        super().__init__()
        self.may_go_on = threading.Event()

    def on_rows(self, run, rows):
        super().on_rows(run, rows)
        assert self.may_go_on.wait(DEADLINE)


def test_a_slow_one_is_told_of_more_at_once_and_holds_up_nobody():
    run, slow, quick = ScriptedRun(), Slow(), Remembers()
    followers = follow(run, slow, quick)
    run.rows(1)
    assert slow.heard("rows")
    for step in range(2, 10):
        assert quick.heard("rows", times=step - 1)
        run.rows(step)
    assert quick.heard("rows", times=9)
    slow.may_go_on.set()
    assert ended(run, followers)
    assert slow.of("rows") == [([1],), (list(range(2, 10)),)]


HOOKS = ("for_run", "on_start", "on_rows", "on_evaluation", "on_change", "on_end")


@pytest.mark.parametrize("error", [ValueError("no \x1b[2J disk"), SystemExit(3)])
@pytest.mark.parametrize("hook", HOOKS)
def test_one_that_raises_is_left_out_with_one_warning(hook, error, caplog):
    if hook == "for_run" and isinstance(error, SystemExit):
        pytest.skip("that ends the program, in whose own thread it is raised")

    def raises(self, run, *facts):
        self.note(hook)
        raise error

    bad = type("Bad", (Remembers,), {hook: raises})()
    run, good = ScriptedRun(), Remembers()
    for step in (1, 2, 3):
        run.rows(step)
        run.evaluation(step)
        run.history.mark(step / 10, "something")
    with pytest.warns(RuntimeWarning, match=f"callback Bad: {hook} raised {type(error).__name__}.*mend it") as said:
        assert ended(run, follow(run, bad, good))
    assert len(said) == 1
    assert "\x1b" not in str(said[0].message)
    assert good.notes[-1] == ("end", "finished")
    assert len(bad.of(hook)) == 1
    if hook not in ("for_run", "on_start"):  # what has begun is ended
        assert bad.notes[-1][0] in ("end", "on_end")
    assert any(record.exc_info and record.exc_info[1] is error for record in caplog.records)


def test_what_raises_again_at_the_end_is_logged_and_not_said(caplog):
    class Bad(Callback):
        def on_rows(self, run, rows):
            raise ValueError("rows")

        def on_end(self, run):
            raise ValueError("the end")

        def __repr__(self):
            raise ValueError("not even that")

    run = ScriptedRun()
    run.rows(1)
    with pytest.warns(RuntimeWarning, match="callback Bad: on_rows raised ValueError: rows") as said:
        ended(run, follow(run, Bad()))
    assert len(said) == 1
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["rows", "the end"]


def test_where_warnings_are_errors_it_still_hurts_nobody():
    class Bad(Callback):
        def for_run(self, run):
            raise ValueError("at once")

    run = ScriptedRun()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ended(run, follow(run, Bad()))


class Stuck(Slow):
    patience = 0.01


def test_one_that_does_not_return_is_left_behind_and_told_of_the_end_one_day():
    run, stuck, good = ScriptedRun(), Stuck(), Remembers()
    followers = follow(run, stuck, good)
    run.rows(1)
    assert stuck.heard("rows")
    run.rows(2)
    with pytest.warns(RuntimeWarning, match="callback Stuck: on_rows had not returned 0.01 s after the end") as said:
        assert ended(run, followers)
    assert followers.join()
    assert len(said) == 1
    assert good.notes[-1] == ("end", "finished")
    stuck.may_go_on.set()
    assert stuck.heard("end")
    assert [note[0] for note in stuck.notes] == ["start", "rows", "end"], "no more but the end"


def test_who_was_left_out_of_one_run_is_left_out_of_the_next_of_a_comparison():
    class Bad(Remembers):
        def on_start(self, run):
            super().on_start(run)
            raise ValueError("no")

    bad, stuck, good = Bad(), Stuck(), Remembers()
    told = CallbackList([bad, stuck, good])
    first, second = ScriptedRun(label="first"), ScriptedRun(label="second")
    first.rows(1)
    with pytest.warns(RuntimeWarning) as said:
        ended(first, told.follow(first))
    assert sorted(str(one.message).split(":")[0] for one in said) == ["callback Bad", "callback Stuck"]
    ended(second, told.follow(second))
    assert [label for label, _ in good.of("start")] == ["first", "second"]
    stuck.may_go_on.set()
    assert stuck.heard("end")
    assert [label for label, _ in bad.of("start") + stuck.of("start")] == ["first", "first"]


def test_ctrl_c_ends_the_wait_alone(monkeypatch):
    run, stuck = ScriptedRun(), Slow()
    followers = follow(run, stuck)
    run.rows(1)
    assert stuck.heard("rows")
    waiting = stuck_thread()

    def interrupted(timeout=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(waiting, "join", interrupted)
    with pytest.warns(RuntimeWarning, match="on_rows had not returned when it was interrupted"):
        assert not ended(run, followers)
    stuck.may_go_on.set()
    assert stuck.heard("end")


def stuck_thread():
    (found,) = (thread for thread in threading.enumerate() if thread.name == "scaleml-callback-Slow")
    return found


def test_a_hook_that_waits_for_its_own_run_does_not_wait_for_itself():
    answers = []

    class Waits(Remembers):
        def on_rows(self, run, rows):
            answers.append(ended(run, followers))

    run, waits = ScriptedRun(), Waits()
    followers = follow(run, waits)
    run.rows(1)
    assert waits.heard("end")
    assert answers == [True]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Remembers, r"must be a list such as \[Tqdm\(\)\]"),
        (Remembers(), r"must be a list such as \[<"),
        ([Remembers], "Remembers is a class: call it"),
        ([print], "is no scaleml.callbacks.Callback: derive from that"),
        (None, "must be a list"),
    ],
)
@pytest.mark.parametrize("function", [scaleml.train, scaleml.start, scaleml.compare])
def test_what_is_no_callback_is_refused_before_anything_starts(function, given, words):
    strategies = [[scaleml.Serial()]] if function is scaleml.compare else []
    with pytest.raises(TypeError, match=words):
        function(scaleml.LinearModel(), np.zeros((4, 1)), np.zeros(4), *strategies, callbacks=given)


def test_what_a_hook_does_at_the_end_of_a_comparison_hurts_nobody(no_leaks):
    class Raises(Callback):
        def on_comparison_end(self, comparison):
            raise ValueError("no room")

    class Stuck(Remembers):
        patience = 0.01

        def on_comparison_end(self, comparison):
            self.heard("go on")

    comparison, good, stuck = Comparison([]), Remembers(), Stuck()
    with pytest.warns(RuntimeWarning) as said:
        assert CallbackList([Raises(), stuck, good]).end_comparison(comparison)
    assert good.notes == [("comparison", comparison)]
    words = sorted(str(one.message) for one in said)
    assert (
        "callback Raises: on_comparison_end raised ValueError: no room. The comparison is complete without it"
        in words[0]
    )
    assert "callback Stuck: on_comparison_end had not returned 0.01 s after the end of the comparison" in words[1]
    stuck.note("go on")
