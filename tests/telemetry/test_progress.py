"""Progress of a comparison's runs: how far, how long yet, and where it shows."""

from __future__ import annotations

import io
import re
import sys
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console

from scaleml.telemetry import History, screen
from scaleml.telemetry.palette import strokes
from scaleml.telemetry.place import Place
from scaleml.telemetry.progress import Progress
from scaleml.telemetry.progress_views import NotebookView, PlainView, Standing, TerminalView, html
from telemetry_fakes import FakeRun, made, row


class Watch:
    """A view that keeps what it was shown."""

    def __init__(self):
        self.seen = []
        self.closed = False

    def show(self, standing):
        self.seen.append(standing)

    def close(self, standing):
        self.show(standing)
        self.closed = True


class Hands:
    """A clock that is set by hand."""

    def __init__(self):
        self.time = 0.0
        self.now = lambda: self.time

    def sleep(self, seconds):
        raise AssertionError("nobody should wait")


def half_way(label):
    """A run that has trained on 500 of 1,000 rows in 5 s."""
    history = History()
    history.append_rows([row(step=n, time=n, samples=100 * n, compute=1.0) for n in range(1, 6)])
    return FakeRun(label, state="running", history=history, workers=2, total_samples=1000)


def placed(run, stage, entry):
    """The run in the first of two rounds."""
    run.place = Place("one", entry, stage, 0, 2)
    return run


def test_time_left_is_that_of_this_run_and_of_those_to_come():
    clock, view = Hands(), Watch()
    with Progress("compare", view=view, clock=clock) as progress:
        progress.on_run(placed(made("Serial()"), "warm-up", 0))
        assert progress.look().heading == "compare: warm-up: Serial()"
        progress.on_plan(["Serial()", "AllReduce()"])
        progress.on_run(placed(made("Serial()", seconds=8.0), "round", 0))
        clock.time = 10.0
        progress.on_run(placed(half_way("AllReduce()"), "round", 1), rows=1000)
        clock.time = 15.0
        # 500 rows at 100 a second, then a Serial() of 10 s and an AllReduce() of the 5 s so far and the 5 s left.
        assert progress.look().heading == "compare: round 1 of 2, run 2 of 4, about 25 s left"
        serial, allreduce = progress.look().lanes
        assert (serial.share, allreduce.share) == (0.5, 0.25)
        assert "finished after" in serial.facts
        assert "100 rows/s" in allreduce.facts
        clock.time = 47.0
    assert view.closed
    assert view.seen[-1].heading == "compare: 2 runs in 47 s"


def test_before_the_first_run_it_says_what_it_waits_for():
    progress = Progress("compare", view=Watch(), clock=Hands())
    assert progress.look() == Standing("compare: starting the workers and bringing them the data", ())
    progress.say("tuning: 12 trials")
    assert progress.look().heading == "compare: tuning: 12 trials"
    progress.on_plan(["Serial()"])
    assert progress.look().lanes[0].facts == "to come"


def test_an_error_before_the_first_run_leaves_no_figures():
    view = Watch()
    with pytest.raises(ValueError, match="no such data"), Progress("train", view=view, clock=Hands()):
        raise ValueError("no such data")
    assert view.seen[-1].heading == "train: no run was started"


def test_a_failed_run_says_why_and_everything_is_escaped():
    view = Watch()
    with Progress("train", view=view, clock=Hands()) as progress:
        progress.on_run(made("<b>(x)", state="failed", error="rank 1: <script>"))
    page = html(view.seen[-1])
    assert "failed: rank 1: &lt;script&gt;" in page
    assert "<script" not in page
    assert "&lt;b&gt;(x)" in page
    assert "aria-live" not in page
    assert 'role="status"' not in page


def test_a_strategy_has_the_colour_of_the_plots():
    progress = Progress("compare", view=Watch(), clock=Hands())
    labels = ["Serial()", "LocalSGD(period=8)", "LocalSGD(period=4)"]
    progress.on_plan(labels)
    assert [lane.color for lane in progress.look().lanes] == [stroke.color for stroke in strokes(labels)]


def test_a_notebook_has_one_display_that_is_updated_when_something_is_new():
    shown = []
    handle = SimpleNamespace(update=lambda bundle, raw: shown.append(bundle))

    def display(bundle, raw, display_id):
        shown.append(bundle)
        return handle

    view = NotebookView(display)
    first, second = Standing("train: a", ()), Standing("train: b", ())
    view.show(first)
    view.show(first)
    view.show(second)
    view.close(second)
    assert [bundle["text/plain"] for bundle in shown] == ["train: a", "train: b"]


def test_a_kernel_that_refuses_threads_still_shows_the_end():
    shown, refuses = [], [True]

    def update(bundle, raw):
        if refuses[0]:
            raise LookupError("parent_header")
        shown.append(bundle["text/plain"])

    view = NotebookView(lambda *bundle, **where: SimpleNamespace(update=update))
    view.show(Standing("a", ()))
    view.show(Standing("b", ()))
    refuses[0] = False
    view.close(Standing("c", ()))
    assert shown == ["c"]


def test_a_terminal_shows_lines_that_fit():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=30)
    view = TerminalView(console)
    with Progress("compare", view=view, clock=Hands()) as progress:
        progress.on_plan(["Serial()", f"ParameterServer({'x' * 90})"])
        progress.on_run(made("Serial()"))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text)]
    assert max(map(len, lines)) <= 80
    assert any("Serial() 1 thread" in line and "finished" in line for line in lines)


def test_a_pipe_gets_a_line_as_a_run_begins_and_one_as_it_ends():
    stream, run = io.StringIO(), half_way("AllReduce()")
    with Progress("train", view=PlainView(stream), clock=Hands()) as progress:
        progress.on_run(run)
        progress.refresh()
        run.state = "finished"
    first, last, end = stream.getvalue().splitlines()
    assert "AllReduce() on 2 workers: 50%" in first
    assert "finished" in last
    assert end == "train: ended after 0 s"


@pytest.mark.parametrize("wanted", [1, "yes", 0])
def test_progress_is_a_yes_a_no_or_a_default(wanted):
    with pytest.raises(TypeError, match=f"progress={wanted!r}: must be True, False, or None"):
        Progress("train", wanted)


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Return what makes a terminal of this process's streams; not while pytest still turns them."""

    def make():
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setattr(sys, "stdout", Screen())
        monkeypatch.setattr(sys, "stderr", Screen())

    return make


def written(wanted):
    before = threading.active_count()
    with Progress("train", wanted) as progress:
        progress.on_run(made("Serial()"))
    assert threading.active_count() == before, "its thread is gone"
    return sys.stderr.getvalue()


def test_by_default_it_shows_where_somebody_looks(terminal, monkeypatch):
    terminal()
    assert "train: ended after" in written(None)
    monkeypatch.setattr(sys, "stderr", Screen())
    assert written(False) == ""
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # a pipe
    assert written(None) == ""
    assert "finished" in written(True)


def test_threads_draw_on_no_screen(terminal):
    terminal()
    places = []
    thread = threading.Thread(target=lambda: places.append((screen.alone(), written(None))))
    thread.start()
    thread.join()
    assert places == [(False, "")]
