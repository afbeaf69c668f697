"""The lab at the widths that people have: nothing is cut off, and no panel is empty without a word."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

CELL = """import scaleml
from scaleml import SGD, AllReduce, ParameterServer, Serial, Trial
lab = scaleml.Lab(
    strategies=[Serial(), AllReduce(), Trial(ParameterServer("async"), optimizer=SGD(0.05))],
    workers=2, epochs=3, repeats=1,
)
lab._setup.model.value = "linear model"
lab._setup._fixed.setdefault("repeats", 1)
lab"""
WIDTHS = (900, 970, 1280, 1600)
TALL = 2600  # charts out of sight keep the size they had
# What is wider than its box, where that hides the rest or makes it scroll, and text beyond the lab's edge, on axes too. Run
# names beside a title may end in dots, and what only screen readers see is clipped.
CUT = """() => [...document.querySelectorAll('.scaleml-lab, .scaleml-lab *')].filter(part => {
  const style = getComputedStyle(part), whole = part.closest('svg.bqplot, .scaleml-lab').getBoundingClientRect();
  if (part.matches('span, svg.bqplot text') && part.getBoundingClientRect().right > whole.right + 1) return true;
  return !part.closest('svg') && !part.classList.contains('scaleml-about') && style.visibility !== 'hidden' && style.clipPath === 'none'
    && style.overflowX !== 'visible' && part.clientWidth > 0 && part.scrollWidth > part.clientWidth + 1;
}).map(part => `${part.className}: ${part.scrollWidth} in ${part.clientWidth}: ${part.textContent.slice(0, 60)}`)"""
# Nothing has been cut off for a second.
SETTLED = f"""() => {{
  window.wholeSince = ({CUT})().length ? undefined : window.wholeSince ?? performance.now();
  return performance.now() - window.wholeSince > 1000;
}}"""
LINES = (
    "() => [...document.querySelectorAll('.scaleml-lab .scaleml-title')].map(title => title.getClientRects()[0].height)"
)


def test_nothing_is_cut_off_at_any_width(jupyter):
    with jupyter.notebook("layout", [CELL], size=(WIDTHS[0], TALL)) as notebook:
        notebook.run_all("Choose strategies and press Run")
        assert notebook.page.locator(".scaleml-about", has_text="no run").count() == 6, "each empty panel says so"
        assert cut(notebook) == {}
        notebook.press("Run")
        notebook.wait("Held-out loss at the end")
        assert cut(notebook) == {}
        assert set(notebook.page.evaluate(LINES)) == {22}, "each title stays on one line"
        assert notebook.page.locator(".scaleml-about", has_text="ParameterServer('async'), SGD(0.05)").count() == 1
        assert notebook.errors == []
        assert notebook.tracebacks() == []


def cut(notebook):
    """What is cut off, by width of the window."""
    from playwright.sync_api import TimeoutError as TooLate

    found = {}
    for width in WIDTHS:
        notebook.page.set_viewport_size({"width": width, "height": TALL})
        notebook.page.wait_for_function("width => innerWidth === width", arg=width)
        notebook.page.evaluate("() => { window.wholeSince = undefined }")
        try:  # charts take the new width a moment later, one after another
            notebook.page.wait_for_function(SETTLED, timeout=60_000)
        except TooLate:
            found[width] = notebook.page.evaluate(CUT)
    return found
