"""What the lab shows, read off its traits, without a browser."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from textwrap import dedent

import ipywidgets as widgets
import numpy as np
import pytest

import leaks
import scaleml
from lab.clicking import LONG, PATIENCE, begun, finished, holds, settled, words
from scaleml.clock import WALL
from scaleml.lab import charts, publisher, roster
from scaleml.lab.trace import POINTS
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer, Serial
from scaleml.telemetry import Ledger, palette
from scaleml.telemetry.noise_scale import noise_curve


def test_run_compares_what_is_ticked_and_shows_what_was_found(lab):
    lab = finished(lab(strategies=[AllReduce(), LocalSGD(2), LocalSGD(4)], epochs=5))
    assert [run.state for run in lab.runs] == ["finished"] * 3
    assert lab.result.runs == lab.runs
    assert len(lab.result.table()) == 3
    assert unescape(lab._board.found.value).count("LocalSGD(period=4)") >= 1
    assert str(lab.result.verdict.headline) in unescape(lab._board.found.value)
    assert "has finished" in words(lab)
    names = [tick.description for _, tick, _ in lab._board.legend._entries]
    assert [name.partition(",")[0] for name in names] == [run.label for run in lab.runs]
    assert all(": loss 0." in name for name in names)


def test_progress_counts_the_runs_to_come_and_guesses_the_time_of_all(lab):
    lab = lab(strategies=[AllReduce(), LocalSGD(2), LocalSGD(4)], epochs=LONG)
    begun(lab)
    said = re.compile(r"run 1 of 3: .*%, about .+ left; about .+ in all, if the next runs are like these")
    holds(lambda: said.search(unescape(lab._board.progress.value)))
    lab.stop_button.click()
    settled(lab)
    assert "1 run<" in lab._board.progress.value


def test_the_lines_show_the_runs(lab):
    lab = finished(lab(strategies=[AllReduce(), ParameterServer()], epochs=40))
    board = lab._board
    for chart in (board.by_time, board.by_samples, board.throughput, board.staleness):
        assert len(chart.lines) == 2
        assert all(0 < len(line.x) == len(line.y) <= POINTS for line in chart.lines)
        assert chart.lines[0].colors != chart.lines[1].colors
        assert chart.lines[0].line_style != chart.lines[1].line_style
    for index, run in enumerate(lab.runs):
        np.testing.assert_allclose(board.by_samples.lines[index].y, run.history.evaluations["loss"])
        np.testing.assert_allclose(board.by_time.lines[index].x, run.history.evaluations["time"])
        assert board.by_samples.lines[index].x[-1] == pytest.approx(run.total_samples, rel=0.02)
    assert float(np.max(board.staleness.lines[0].y)) == 0
    assert float(np.max(board.staleness.lines[1].y)) > 0


def test_the_ledger_on_screen_adds_up_to_the_wall_time(lab):
    lab = finished(lab(epochs=40))
    bars, ledger = lab._board.ledger.bars, Ledger(lab.runs[-1].history)
    assert list(bars.x) == ["rank 0", "rank 1"]
    np.testing.assert_allclose(np.sum(bars.y, axis=0), ledger.wall)
    np.testing.assert_allclose(np.sum(bars.y, axis=0), lab.runs[-1].train_seconds, rtol=0.1)


def test_runs_gather_until_they_are_cleared(lab):
    lab = finished(lab())
    lab._setup.rate.value = 0.05
    finished(lab)
    assert [run.label for run in lab.runs] == ["AllReduce()", "AllReduce(), SGD(0.05)"]
    lab.clear_button.click()
    chart = lab._board.by_time
    holds(lambda: lab.runs == () and not chart.lines and lab._board.found.value == "")
    made = chart.figure.marks[3:-1]  # after the target and the bands
    assert [line.visible for line in made] == [False, False]
    finished(lab)
    assert [line.visible for line in made] == [True, False], "they are used again"
    assert chart.lines == made[:1]
    assert len(chart.lines[0].x)


def test_runs_of_other_data_are_not_drawn_over_each_other(cluster):
    with scaleml.Lab(epochs=2, workers=2, strategies=[AllReduce()], repeats=1) as lab:
        lab._setup.model.value = "linear model"
        finished(lab)
        lab._setup.data.value = "breast_cancer"
        finished(lab)
        assert len(lab.runs) == 1
        assert lab.runs[0].plan.model.size == 31


def test_a_target_ends_a_run_and_the_next_one_follows(lab):
    lab = lab(epochs=LONG // 100, strategies=[AllReduce(), LocalSGD(2)], target=0.5)
    finished(lab)
    assert [run.state for run in lab.runs] == ["stopped", "stopped"]
    assert all(row.reached for row in lab.result.rows)
    assert lab._board.by_time._target.visible


def test_one_lab_trains_at_a_time_and_the_other_says_which(lab):
    first = lab(epochs=LONG)
    run = begun(first)
    second = lab()
    second.run_button.click()
    holds(lambda: "Another lab trains on this cluster (AllReduce(), run 1 of 1): stop it there" in words(second))
    with pytest.raises(RuntimeError, match="Another lab trains on this cluster"):
        second.start()
    assert run.state == "running"
    first.stop_button.click()
    settled(first)
    assert finished(second).runs[0].state == "finished"
    assert "Another lab" not in words(second)


def in_cell(monkeypatch, key, message, number=3):
    monkeypatch.setattr(roster, "cell", lambda: roster.Cell(key, message, number))


def test_a_cell_that_is_run_again_closes_the_lab_it_made_before(lab, monkeypatch):
    in_cell(monkeypatch, "a", "1")
    without = set(_living())
    first = lab(epochs=LONG)
    own = set(_living()) - without
    run = begun(first)
    in_cell(monkeypatch, "b", "2", number=4)
    other = lab()
    other.run_button.click()
    holds(lambda: "The lab of cell [3] trains on this cluster" in words(other))
    in_cell(monkeypatch, "a", "3")
    second = lab()
    assert run.state == "stopped"
    assert first.widget.comm is None
    assert len(own) > 500
    assert not own & set(_living()), "its widgets are gone"
    with pytest.raises(RuntimeError, match="the lab is closed"):
        first.start()
    in_cell(monkeypatch, "a", "3")
    third = lab()
    assert second.widget.comm is not None, "one cell may make two"
    assert finished(third).runs[0].state == "finished"


def test_a_hidden_run_is_not_drawn_and_the_axes_fit_the_others(lab):
    lab = finished(lab(strategies=[AllReduce(), LocalSGD(4)], epochs=20))
    board = lab._board
    board.legend._entries[1][1].value = False
    holds(lambda: not board.by_time.lines[1].visible)
    settled(lab)
    for chart in board._charts:
        assert [line.visible for line in chart.lines] == [True, False]
        assert set(chart.points.names) <= {"AllReduce(), 2 workers"}
    ends = [chart.lines[0].x[-1] for chart in (board.by_time, board.throughput, board.staleness)]
    assert board.by_time._across.scale.max == pytest.approx(max(ends))
    board.legend._entries[1][1].value = True
    holds(lambda: board.by_time.lines[1].visible)


def test_losses_have_a_logarithmic_axis_where_one_is_wanted(lab):
    lab = finished(lab(epochs=20))
    chart = lab._board.by_samples
    linear = np.array(chart.lines[0].y)
    lab._board.legend.logarithmic.value = True
    holds(lambda: type(chart._axis.scale).__name__ == "LogScale")
    settled(lab)
    assert chart.lines[0].scales["y"] is chart._axis.scale is chart.points.scales["y"]
    assert 0 < chart._axis.scale.min <= linear.min() <= linear.max() <= chart._axis.scale.max
    assert (np.diff(np.log10(chart._axis.tick_values)) > 0).all()
    assert type(lab._board.throughput._axis.scale).__name__ == "LinearScale"
    lab._board.legend.logarithmic.value = False
    holds(lambda: chart.lines[0].scales["y"] is chart._axis.scale is chart._linear)
    holds(lambda: chart._axis.tick_values[0] == 0)


def test_widgets_that_somebody_else_closes_end_the_lab_in_words(lab):
    before = leaks.look(sockets=False).threads
    one = lab(epochs=LONG)
    run = begun(one)
    widgets.Widget.close_all()
    assert not leaks.settle(lambda: leaks.Residue(leaks.look(sockets=False).threads - before))
    assert run.state == "stopped"
    assert one._controller.error == "The lab's widgets were closed: its run was stopped."
    assert one.wait(PATIENCE).runs == (run,)
    with pytest.raises(RuntimeError, match="the lab is closed"):
        one.start()


def test_points_tell_their_run_and_values(lab):
    lab = finished(lab(epochs=20))
    chart = lab._board.by_samples
    assert set(chart.points.names) == {"AllReduce(), 2 workers"}
    line = chart.lines[0]
    assert 2 <= len(chart.points.x) <= charts.HOVERED
    assert set(zip(chart.points.x, chart.points.y, strict=True)) <= set(zip(line.x, line.y, strict=True))
    assert chart.points.tooltip.labels == ["", "samples (rows)", "loss"]


def test_a_strategy_keeps_its_colour_whoever_stands_beside_it(lab):
    first = finished(lab(strategies=[LocalSGD(4)]))
    second = finished(lab(strategies=[Serial(threads=1), AllReduce(), LocalSGD(4)]))
    colors = {run.label: line.colors[0] for run, line in zip(second.runs, second._board.by_time.lines, strict=True)}
    own = colors["LocalSGD(period=4)"]
    assert first._board.by_time.lines[0].colors[0] == own == palette.strokes(["LocalSGD(period=9)"])[0].color
    assert len({colors["AllReduce()"], colors["Serial(threads=1)"], own}) == 3


def test_closing_leaves_no_thread_and_no_widget(lab):
    before, known = leaks.look(sockets=False).threads, set(_living())
    one = lab(epochs=LONG)
    run = begun(one)
    one.close()
    assert run.state == "stopped"
    left = leaks.settle(lambda: leaks.Residue(leaks.look(sockets=False).threads - before))
    assert not left
    kinds = {type(widget).__name__ for key, widget in _living().items() if key not in known}
    assert not kinds
    one.close()
    with pytest.raises(RuntimeError, match="the lab is closed"):
        one.start()


def _living():
    from ipywidgets.widgets.widget import _instances

    return _instances


def test_nothing_is_repainted_more_than_ten_times_a_second(lab):
    lab = lab(epochs=LONG)
    times, paint = [], lab._publisher._repaint

    def counted():
        times.append(WALL.now())
        return paint()

    lab._publisher._repaint = counted
    begun(lab)
    holds(lambda: len(times) > 15)
    assert np.diff(times).min() >= 0.95 * publisher.PERIOD


def test_what_is_saved_needs_no_kernel(lab):
    lab = finished(lab())
    bundle = lab._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == lab.widget.model_id
    assert "AllReduce()" in bundle["text/html"]
    assert "<table" in bundle["text/html"]
    assert "<script" not in bundle["text/html"]
    assert len(bundle["image/png"]) > 10_000
    assert lab.result.verdict.headline in bundle["text/plain"]
    assert sum(len(part) for part in bundle.values() if isinstance(part, str)) < 300_000


def test_what_was_found_takes_the_place_of_a_lab_that_is_closed(lab, monkeypatch):
    shown = {}
    monkeypatch.setattr("IPython.display.display", lambda data, **where: shown.update({where["display_id"]: data}))
    monkeypatch.setattr(
        "IPython.display.update_display", lambda data, **where: shown.update({where["display_id"]: data})
    )
    lab = lab()
    lab._ipython_display_()
    finished(lab)
    lab.close()
    (left,) = shown.values()
    assert "application/vnd.jupyter.widget-view+json" not in left
    assert lab.result.verdict.headline in left["text/plain"]
    assert len(left["image/png"]) > 10_000


def test_half_the_data_is_refused():
    with pytest.raises(ValueError, match="y was given without X"):
        scaleml.Lab(y=[1, 2])


def test_without_jupyter_the_package_works_and_the_lab_says_what_to_install():
    code = """
        import sys
        sys.modules["ipywidgets"] = sys.modules["bqplot"] = None
        import scaleml
        print(scaleml.AllReduce())
        try:
            scaleml.Lab()
        except ImportError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("AllReduce()")
    assert 'pip install ".[lab]"` in' in done.stdout


def test_the_noise_scale_has_a_panel_dashed_where_it_is_biased(lab):
    lab = finished(lab(strategies=[Serial(threads=1), AllReduce()], batch_size=32, epochs=40))
    lines = lab._board.noise.chart.lines
    assert len(lines) == 2 * len(lab.runs)
    for run, plain, dashed in zip(lab.runs, lines[::2], lines[1::2], strict=True):
        assert plain.colors == dashed.colors
        assert (plain.line_style, dashed.line_style) == ("solid", "dashed")
        curve, (drawn, empty) = (
            noise_curve(run.history.rows, POINTS // 10),
            (dashed, plain) if run.is_serial else (plain, dashed),
        )
        assert len(empty.x) == 0
        assert (len(drawn.x) > 0) == bool(np.isfinite(curve.rows).any())
        assert "gradient noise scale" in run.summary()
    assert any(len(line.x) for line in lines)


def test_the_noise_panel_says_why_it_is_empty(lab):
    lab = finished(lab(strategies=[Serial(threads=1)], epochs=1, batch_size=10_000))
    assert not any(len(line.x) for line in lab._board.noise.chart.lines)
    assert "not measured" in lab._board.noise.panel._about.value
