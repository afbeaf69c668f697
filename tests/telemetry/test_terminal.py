"""Runs in a terminal and without one, driven by a fake run that grows as it is watched."""

import io
import re
import threading

import pytest
from rich.console import Console

from scaleml.telemetry import Comparison
from scaleml.telemetry.gauge import Gauge
from scaleml.telemetry.terminal import plain_line, view
from telemetry_fakes import FakeRun, in_rounds, row


class Screen(io.StringIO):
    """A file that tells when a slow rank was named."""

    def __init__(self):
        super().__init__()
        self.named = threading.Event()

    def write(self, text):
        if "rank 1" in text:
            self.named.set()
        return super().write(text)


def console(terminal, width=140):
    return Console(file=Screen(), force_terminal=terminal, width=width, color_system="truecolor" if terminal else None)


def text_of(shown):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.file.getvalue())


def steps(run, first, last, slow=1):
    """Two ranks at 100 rows/s each; rank 0 waits for rank 1."""
    for step in range(first, last):
        common = {"step": step, "time": step / 10, "samples": 10 * step, "loss": 1 / step}
        run.history.append_rows(
            [row(0, compute=0.05, wait=0.05, waited_for=slow, **common), row(1, compute=0.1, **common)]
        )


@pytest.fixture
def run():
    return FakeRun("AllReduce()", workers=2, state="running", train_seconds=0.0)


def test_a_gauge_reads_what_is_new(run):
    gauge = Gauge(run, window=1.0)
    nothing = gauge.read()
    assert (nothing.samples, nothing.slow, nothing.over) == (0, None, False)
    steps(run, 1, 11)
    first = gauge.read()
    assert first.samples == 200
    assert first.samples_per_s == pytest.approx(200)
    assert first.shares["wait"] == pytest.approx(0.25)
    assert first.slow == 1
    for step in range(11, 41):  # twice the rate
        run.history.append_rows(
            [row(r, step=step, time=step / 10, samples=100 + 20 * (step - 10), compute=0.1, loss=0.5) for r in (0, 1)]
        )
        gauge.read()
    now = gauge.read()
    assert now.samples == 1400
    assert now.samples_per_s == pytest.approx(400)
    assert now.slow is None  # of the last second
    assert now.loss == pytest.approx(0.5)


def test_one_look_at_a_run_is_one_plain_line(run):
    steps(run, 1, 6)
    found = "100 samples, 200 samples/s, loss 0.4567, compute/wait/comm 75%/25%/0%, rank 1 holds up the others"
    assert plain_line(run, Gauge(run).read()) == f"AllReduce() on 2 workers: running, {found}"
    run.state, run.error = "failed", "shape [/bold] [3]"
    assert plain_line(run, Gauge(run).read()) == "AllReduce() on 2 workers: failed: shape [/bold] [3]"


def table_head(text):
    return next(line for line in text.splitlines() if "strategy" in line and "to target" in line)


@pytest.mark.parametrize("width", [60, 80, 120, 240])
def test_verdict_and_table_fit(width):
    comparison = Comparison(
        in_rounds(
            [
                ("Serial()", 1, {}),
                ("AllReduce()", 4, {"rate": 3000, "straggler": 2}),
                ("LocalSGD(period=8)", 4, {}),
            ]
        ),
        target=0.25,
    )
    shown = console(True, width)
    shown.print(view(comparison, width))
    text = text_of(shown)
    assert "Scale with AllReduce() on 4 workers" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for wanted in ("strategy", "to target", "speed-up", "LocalSGD"):
        assert wanted in text
    assert ("cold" in table_head(text)) == (width == 240)
    table = text[text.index("strategy") :]
    assert ("loss at the end" in text) == ("loss" in table.splitlines()[0]), "what is not shown is not explained"
    assert ("Cold:" in text) == ("cold" in table.splitlines()[0])
    again = console(True, width)
    again.print(comparison)
    assert text_of(again) == text
