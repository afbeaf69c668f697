"""The lab in a real JupyterLab and a real browser: what a person sees and clicks."""

from __future__ import annotations

import psutil
import pytest

from runtime.harness import await_condition

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

CELL = """import scaleml
from scaleml import AllReduce, LocalSGD
lab = scaleml.Lab(strategies=[AllReduce(), LocalSGD(8)], epochs={epochs}, repeats={repeats})
lab._setup.model.value = "linear model"
lab"""
PIDS = "import psutil; print('kernel', psutil.Process().pid)"


def children(kernel):
    return [process for process in psutil.Process(kernel).children(recursive=True) if process.is_running()]


def kernel_of(notebook):
    return int(notebook.wait(r"kernel \d+").inner_text().split()[-1])


def test_run_watch_and_read_the_verdict(jupyter):
    with jupyter.notebook("verdict", [CELL.format(epochs=3, repeats=3)]) as notebook:
        notebook.run_all("Choose strategies and press Run")
        notebook.press("Run")
        notebook.wait("Held-out loss at the end")
        notebook.wait("Measured in 3 rounds of 2 runs")
        notebook.wait("is (the first|the only one) to reach|No difference shown|No run reached|No finished run")
        curves = notebook.page.locator(".scaleml-lab .bqplot path.line")
        drawn = [path for path in curves.all() if len(path.get_attribute("d") or "") > 20]
        assert len(drawn) >= 8, "two contenders, over time and over samples, each before the band of its rounds"
        assert notebook.page.locator(".scaleml-lab .bqplot .bar").count() >= 10, "two ranks, five parts each"
        # What was found is there after a reload, with the kernel's state; and in the file.
        assert await_condition(lambda: "image/png" in saved(notebook), 60)
        notebook.reopen("Held-out loss at the end")
        assert notebook.errors == []
        assert notebook.tracebacks() == []
    assert {"text/html", "text/plain"} <= saved(notebook).keys()
    assert "AllReduce()" in "".join(saved(notebook)["text/html"])


def saved(notebook):
    """Save the notebook, and return what its file has of the lab."""
    if not notebook.page.is_closed():
        notebook.save()
    return notebook.saved()["cells"][0]["outputs"][-1]["data"]


def test_kill_a_worker_then_stop(jupyter):
    with jupyter.notebook("kill", [PIDS, CELL.format(epochs=200_000, repeats=1)]) as notebook:
        notebook.run_all("Choose strategies and press Run")
        kernel = kernel_of(notebook)
        notebook.press("Run")
        notebook.wait("trains on")
        before = {process.pid for process in children(kernel)}
        notebook.press("Kill")
        notebook.wait("ank 1 replaced: lost at step|ank 0 replaced: lost at step")
        notebook.wait("trains on")
        assert await_condition(lambda: before - {process.pid for process in children(kernel)}, 60)
        notebook.press("Skip")
        notebook.wait("LocalSGD.* trains on")
        notebook.press("Stop")
        notebook.wait("was stopped after")
        assert notebook.errors == []
        assert notebook.tracebacks() == []


def test_a_closed_page_and_a_restarted_kernel_leave_nothing(jupyter):
    with jupyter.notebook("restart", [PIDS, CELL.format(epochs=200_000, repeats=1)]) as notebook:
        notebook.run_all("Choose strategies and press Run")
        kernel = kernel_of(notebook)
        notebook.press("Run")
        notebook.wait("trains on")
        notebook.save()
        notebook.page.goto("about:blank")
        held = children(kernel)
        assert held, "the run goes on without its page"
        notebook.reopen("trains on")
        notebook.restart()
        assert await_condition(lambda: not any(process.is_running() for process in held), 60)
        notebook.run_all("Choose strategies and press Run")
        notebook.press("Run")
        notebook.wait("trains on")
