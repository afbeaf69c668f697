"""The lab under a person's hands: keys, names, colours and places, in a real JupyterLab and a real browser."""

from __future__ import annotations

import re

import pytest

from runtime.harness import await_condition

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

CELL = """import scaleml
from scaleml import AllReduce, LocalSGD
lab = scaleml.Lab(strategies=[AllReduce(), LocalSGD(8)], workers=2, epochs={epochs}, repeats=1)
lab._setup.model.value = "linear model"
lab._setup._fixed.setdefault("repeats", 1)
lab"""
READY = "Choose strategies and press Run"
COUNT = """import threading, ipywidgets.widgets.widget as w
print('there are', len(w._instances), 'widgets and', sum('scaleml-lab' in t.name for t in threading.enumerate()), 'threads')"""
CLOSE = "import ipywidgets; ipywidgets.Widget.close_all()"
# Fields and buttons that nobody can name who does not see them.
NAMELESS = """() => [...document.querySelectorAll('.scaleml-lab :is(input, select, button, textarea)')].filter(part => {
  if (!part.checkVisibility()) return false;
  const labels = [...(part.labels ?? [])].map(label => label.innerText || label.textContent).join('');
  return !(part.getAttribute('aria-label') || labels || part.textContent).trim();
}).map(part => part.outerHTML)"""
# Text that is hard to read on what lies behind it: a contrast below 3, as WCAG counts it for large text and drawings.
DIM = """() => {
  const parts = text => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = part => {
    for (; part; part = part.parentElement) {
      const color = parts(getComputedStyle(part).backgroundColor);
      if (color.length === 3 || color[3] > 0.5) return color;
    }
    return [255, 255, 255];
  };
  const texts = [...document.querySelectorAll('.scaleml-lab *')].filter(part => part.checkVisibility() && !part.disabled
    && !part.closest('style') && [...part.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()));
  return texts.map(part => {
    const style = getComputedStyle(part), color = part.closest('svg') ? style.fill : style.color;
    const [one, other] = [light(parts(color)), light(behind(part))].sort((a, b) => b - a);
    return [(one + 0.05) / (other + 0.05), part.textContent.trim().slice(0, 40), color];
  }).filter(([contrast]) => contrast < 3);
}"""
FOCUSED = "() => (document.activeElement.innerText || document.activeElement.labels?.[0]?.innerText || '').trim()"


def cells(notebook):
    return notebook.page.locator(".jp-Notebook .jp-Cell").count()


def field(notebook, name):
    return notebook.page.locator(".scaleml-lab").get_by_label(name, exact=True).first


def tab_to(notebook, name):
    """Press Tab until a control of that name has the focus."""
    for _ in range(80):
        notebook.page.keyboard.press("Tab")
        if notebook.page.evaluate(FOCUSED) == name:
            return
    raise AssertionError(f"Tab does not come to {name}")


def visible_form(notebook):
    return notebook.page.locator(".scaleml-setup").is_visible()


def test_keys_alone_suffice_and_stay_in_the_lab(jupyter):
    with jupyter.notebook("keys", [CELL.format(epochs=200_000), "1 + 1"], size=(900, 1000)) as notebook:
        notebook.run_all(READY)
        notebook.page.wait_for_selector(".scaleml-lab[role=group]", state="attached")
        assert notebook.page.evaluate(NAMELESS) == []
        status = notebook.page.locator(".scaleml-said")
        assert (status.get_attribute("role"), status.get_attribute("aria-live")) == ("status", "polite")
        count = cells(notebook)
        for name in ("data", "AllReduce", "workers"):
            field(notebook, name).focus()
            notebook.page.keyboard.type("ddx")
            assert cells(notebook) == count, f"typing in {name!r} reached JupyterLab"
        field(notebook, "data").focus()
        notebook.page.keyboard.press("ArrowDown")
        assert field(notebook, "data").evaluate("menu => menu.selectedIndex") > 0, "arrows choose"
        # What was typed is refused in words as soon as the field is left, and stays as it is.
        field(notebook, "workers").fill("1.5")
        field(notebook, "batch (rows)").focus()
        notebook.wait("workers '1.5': must be a whole number, 1 or more")
        assert field(notebook, "workers").input_value() == "1.5"
        field(notebook, "workers").fill("2")
        field(notebook, "batch (rows)").focus()
        file = jupyter.folder / "keys.ipynb"
        written = file.stat().st_mtime_ns
        field(notebook, "data").focus()  # what is pressed in a text field ipywidgets keeps to itself
        notebook.page.keyboard.press("Control+s")
        assert await_condition(lambda: file.stat().st_mtime_ns > written, 60), "with Ctrl keys are JupyterLab's"
        # Run, stop, and the settings again.
        field(notebook, "data").focus()
        notebook.page.keyboard.press("Shift+Tab")
        notebook.page.keyboard.press("Shift+Tab")
        notebook.page.keyboard.press("Shift+Tab")
        assert notebook.page.evaluate(FOCUSED) == "Run"
        notebook.page.keyboard.press("Enter")
        notebook.wait("trains on")
        assert not visible_form(notebook), "the settings fold while a run lives"
        chart = notebook.page.locator(".scaleml-lab .bqplot").first.bounding_box()
        assert chart["y"] + chart["height"] <= 1000, "the first chart is on the first screen"
        kill = notebook.page.locator("button", has_text="Kill").bounding_box()
        notebook.page.evaluate(
            "() => { document.querySelector('.scaleml-words').innerText = 'long words '.repeat(60) }"
        )
        assert notebook.page.locator("button", has_text="Kill").bounding_box() == kill, "buttons stay where they are"
        tab_to(notebook, "Stop")
        notebook.page.keyboard.press("Enter")
        notebook.wait("was stopped after")
        tab_to(notebook, "settings")
        notebook.page.keyboard.press("Space")
        assert visible_form(notebook)
        assert cells(notebook) == count
        assert notebook.errors == []
        assert notebook.tracebacks() == []


def test_lines_tell_hide_and_scale_and_all_is_legible_in_the_dark(jupyter):
    with jupyter.notebook("lines", [CELL.format(epochs=60)], size=(1280, 1200)) as notebook:
        notebook.page.evaluate("() => jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
        notebook.run_all(READY)
        notebook.page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
        assert notebook.page.evaluate(DIM) == []
        notebook.press("Run")
        notebook.wait("Held-out loss at the end")
        assert notebook.page.evaluate(DIM) == []
        page = notebook.page
        drawn = page.locator(".scaleml-lab .bqplot").first
        page.wait_for_function("() => document.querySelectorAll('.scaleml-lab .bqplot .object_grp').length > 10")
        assert set(
            page.evaluate(
                "() => [...document.querySelectorAll('.object_grp .dot')].map(d => getComputedStyle(d).opacity)"
            )
        ) == {"0"}
        drawn.locator(".object_grp").nth(5).hover(force=True)
        told = page.locator(".bqplot_mark_tooltip", has_text="training time (s)")
        assert await_condition(lambda: any(part.is_visible() for part in told.all()), 30)
        text = next(part.inner_text() for part in told.all() if part.is_visible())
        assert re.search(r"(AllReduce\(\)|LocalSGD\(period=8\)), 2 workers[\s\S]*loss\s*\d", text), text
        ticks = drawn.locator(".tick").all_text_contents
        before = ticks()
        field(notebook, "log scale").check()
        assert await_condition(lambda: ticks() != before, 30), before
        field(notebook, "log scale").uncheck()
        assert await_condition(lambda: ticks() == before, 30), ticks()
        seen = "() => [...document.querySelectorAll('.scaleml-lab .bqplot path.line')].filter(p => p.getClientRects().length).length"
        lines = page.evaluate(seen)
        page.locator(".scaleml-legend").get_by_text("LocalSGD(period=8), 2 workers").click()
        assert await_condition(lambda: page.evaluate(seen) < lines, 30)
        tips = page.evaluate(
            "() => [...document.querySelectorAll('.scaleml-lab [title]')].map(part => part.title).join(' ')"
        )
        for said in (
            "period steps alone, then the mean",
            "waited for a slower rank",
            "The global batch",
            "The speed-up over",
        ):
            assert said in tips
        assert notebook.errors == []


def test_a_cell_that_is_run_again_and_widgets_that_are_closed_leave_nothing(jupyter):
    with jupyter.notebook("again", [CELL.format(epochs=200_000), COUNT, CLOSE]) as notebook:
        page = notebook.page

        def run(number):
            page.locator(".jp-Cell").nth(number).locator(".jp-Cell-inputArea").first.click()
            page.evaluate("() => { jupyterapp.commands.execute('notebook:run-cell') }")

        def counted():
            before = page.locator(".jp-Cell").nth(1).inner_text()
            run(1)
            found = re.compile(r"there are (\d+) widgets and (\d+) threads")
            assert await_condition(lambda: page.locator(".jp-Cell").nth(1).inner_text() != before, 60)
            assert await_condition(lambda: found.search(page.locator(".jp-Cell").nth(1).inner_text()), 60)
            return tuple(map(int, found.search(page.locator(".jp-Cell").nth(1).inner_text()).groups()))

        run(0)
        notebook.wait(READY)
        first = counted()[0]
        notebook.press("Run")
        notebook.wait("trains on")
        run(0)
        notebook.wait(READY)
        widgets, threads = counted()
        assert widgets <= 1.1 * first
        assert threads <= 1, "only those of the new lab"
        notebook.press("Run")
        notebook.wait("trains on")
        run(2)
        notebook.wait("was stopped")
        assert counted() == (0, 0)
        assert notebook.tracebacks() == []


def test_train_shows_how_far_it_is(jupyter):
    cell = "import scaleml, numpy as np\nX = np.random.default_rng(0).standard_normal((20_000, 50))\n"
    cell += "run = scaleml.train(scaleml.LinearModel(), X, X[:, 0] > 0, epochs={}, validation=0.2, workers=2)\n"
    with jupyter.notebook("train", [cell.format(2_000)]) as notebook:
        notebook.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells') }")
        notebook.wait("about .* left")  # while the cell runs
        notebook.wait("finished after .* rows/s, held-out loss")
        shown = notebook.page.locator('[role=progressbar][aria-label="AllReduce()"]')
        assert shown.get_attribute("aria-valuenow") == "100"
        assert notebook.tracebacks() == []
        notebook.save()
        (output,) = notebook.saved()["cells"][0]["outputs"]
        assert "finished after" in "".join(output["data"]["text/plain"])
