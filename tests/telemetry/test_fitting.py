"""A fit as it shows: in a notebook, in a terminal, in a pipe."""

import io
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from scaleml.telemetry import fitting
from scaleml.telemetry.fitting import FitProgress, Fitting, Lines, Notebook, Terminal
from telemetry_fakes import FakeRun, row

NAN = float("nan")


class Screen(io.StringIO):
    """A terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True

    @property
    def text(self):
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue())


class Display:
    """IPython's ``display``, and the handle that it returns."""

    def __init__(self):
        self.shown, self.updates = [], []

    def __call__(self, bundle, *, raw, display_id):
        assert raw
        assert display_id
        self.shown.append(bundle)
        return SimpleNamespace(update=lambda bundle, raw: self.updates.append(bundle))


@pytest.fixture
def screen(monkeypatch):
    """Make the standard output a terminal; called in a test, for pytest sets its own before that."""

    def make():
        monkeypatch.setattr(sys, "stdout", Screen())
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "120")
        return sys.stdout

    return make


@pytest.fixture
def notebook(monkeypatch):
    display = Display()
    shell = SimpleNamespace(kernel=object())
    fake = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", fake)
    return display


def fit(name="SGD<Classifier>", epochs=10, verbose=1, run=None):
    with Fitting(name, epochs, verbose) as shown:
        for epoch in range(1, 4):
            shown.on_epoch(1 / epoch, 0.5 + 0.1 * epoch)
            if run is not None:
                shown.on_look(run)
    return shown


def test_a_pipe_gets_a_line_an_epoch(capsys):
    fit()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "SGD<Classifier>, epoch 1, loss = 1.00000000, validation score = 0.600000"
    assert len(lines) == 3


def test_a_terminal_gets_one_line_that_stays(screen):
    shown = screen()
    assert isinstance(fitting.view(1), Terminal)
    fit()
    last = shown.text.replace("\r", "\n").strip().splitlines()[-1]
    assert "SGD<Classifier> finished in this process" in last
    assert "epoch 3 of 10, loss 0.3333, validation 0.8000" in last
    assert "epoch 1, loss" not in shown.text


def test_a_notebook_gets_one_display_that_stays(notebook, monkeypatch):
    monkeypatch.setattr(fitting, "EVERY", 0.0)
    run = FakeRun("AllReduce()", workers=2, state="running")
    for step in (1, 2):
        run.history.append_rows([row(0, step=step, time=step / 10, samples=100 * step, loss=0.5)])
    fit(run=run)
    assert len(notebook.shown) == 1
    last = notebook.updates[-1]
    assert set(last) == {"text/plain", "text/html"}
    assert last["text/plain"].startswith("SGD<Classifier>: finished on 2 workers: epoch 3 of 10, loss 0.3333")
    assert "SGD&lt;Classifier&gt;" in last["text/html"]
    assert "<polyline" in last["text/html"]
    assert "script" not in last["text/html"]


def test_updates_are_rare(notebook):
    now = [0.0]
    with Fitting("A", 1000, clock=SimpleNamespace(now=lambda: now[0])) as shown:
        for _ in range(1000):
            now[0] += 0.01
            shown.on_epoch(0.5, NAN)
    assert 80 <= len(notebook.updates) <= 101


def test_a_failure_and_an_interrupt_show(notebook):
    for error, word in ((ValueError("no"), "failed"), (KeyboardInterrupt(), "interrupted")):
        with pytest.raises(type(error)), Fitting("A", 5):
            raise error
        assert f"A: {word}" in notebook.updates[-1]["text/plain"]


def test_lines_are_for_whoever_asks_for_them_and_for_threads(screen, notebook):
    screen()
    assert isinstance(fitting.view(1), Notebook)
    assert isinstance(fitting.view(2), Lines)
    found = []
    thread = threading.Thread(target=lambda: found.append(fitting.view(1)))
    thread.start()
    thread.join()
    assert isinstance(found[0], Lines)


def test_no_losses_and_infinite_ones_show():
    assert "epoch 0 of 5" in FitProgress("A", 5).html()
    assert "<polyline" not in FitProgress("A", 5, losses=[NAN, float("inf"), 1.0]).html()
    assert (
        "loss nan" in FitProgress("A", 5, losses=[NAN]).text().lower()
        or "loss -" in FitProgress("A", 5, losses=[NAN]).text()
    )


def test_nothing_is_printed_without_verbose_and_no_codes_in_a_pipe():
    code = (
        "import numpy as np\nfrom scaleml.linear_model import SGDClassifier\n"
        "X = np.arange(20.0).reshape(-1, 1)\n"
        "for verbose in (0, 1):\n    SGDClassifier(max_iter=3, tol=None, verbose=verbose).fit(X, X[:, 0] > 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    (line,) = done.stdout.splitlines()
    assert line.startswith("SGDClassifier, epoch 3, loss = ")
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
