"""What stays of a lab in the file of its notebook: the last runs, after a page reload, under their names, and nothing of who is gone."""

from __future__ import annotations

import pytest

from runtime.harness import await_condition

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

CELL = """import scaleml
lab = scaleml.Lab(strategies=[scaleml.AllReduce()], epochs=2, repeats=1)
lab._setup.model.value = "linear model"
lab"""


def saved(notebook):
    """Save the notebook, and return the text and the picture that its file has of the lab."""
    notebook.save()
    data = notebook.saved()["cells"][0]["outputs"][-1]["data"]
    return "".join(data["text/plain"]), "".join(data.get("image/png", ""))


def holds(notebook, text, absent="\0"):
    def held():
        return text in saved(notebook)[0] and absent not in saved(notebook)[0]

    assert await_condition(held, 60), saved(notebook)[0]


def test_the_file_has_the_last_runs_also_after_a_reload(jupyter):
    with jupyter.notebook("kept", [CELL]) as notebook:
        page = notebook.page
        notebook.run_all("Choose strategies and press Run")
        notebook.press("Run")
        holds(notebook, "AllReduce()")
        _, picture = saved(notebook)
        notebook.reopen("Held-out loss at the end")
        page.locator(".scaleml-fold input").check()
        page.get_by_label("epochs", exact=True).fill("4")
        page.keyboard.press("Enter")
        notebook.press("Run")
        holds(notebook, "AllReduce(), epochs=4")
        assert saved(notebook)[1] != picture
        page.get_by_label("run", exact=True).select_option("AllReduce(), epochs=4")
        page.get_by_label("new name").fill("four")
        notebook.press("Rename")
        holds(notebook, "four", absent="epochs=4")
        page.get_by_label("run", exact=True).select_option("AllReduce()")
        notebook.press("Delete")
        holds(notebook, "four", absent="AllReduce()")
        notebook.press("Clear")
        page.locator(".scaleml-keeping").wait_for(state="hidden")
        notebook.press("Run")
        holds(notebook, "AllReduce()", absent="four")
        assert notebook.errors == []
        assert notebook.tracebacks() == []
