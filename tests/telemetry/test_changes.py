"""What changed in mid-run shows: in words, and as a line in the figures."""

from __future__ import annotations

import pickle

from scaleml.telemetry.figures import runs_figure
from scaleml.telemetry.report import run_fragment, run_text
from telemetry_fakes import made


def lines_at(axes, when):
    return [line for line in axes.get_lines() if list(line.get_xdata()) == [when, when]]


def test_changes_show_in_words_and_as_lines():
    run = made("AllReduce()", 2)
    run.history.mark(1.25, "learning_rate=0.1", 40)
    run.history.mark(2.5, "Slow(rank=1, factor=4)")
    assert "after 1.25 s, from step 40: learning_rate=0.1" in run_text(run)
    assert "after 2.5 s: Slow(rank=1, factor=4)" in run_fragment(run)
    axes = runs_figure([run]).axes
    by_time = [a for a in axes if a.get_xlabel() == "training time (s)"]
    assert len(by_time) == 2
    for one in by_time:
        assert len(lines_at(one, 1.25)) == len(lines_at(one, 2.5)) == 1, one.get_title(loc="left")
    assert not any(lines_at(a, 1.25) for a in runs_figure([run, made("Serial()", 1)]).axes), "whose would it be?"
    assert pickle.loads(pickle.dumps(run.history)).changes == run.history.changes
