"""What the file of a notebook holds of a lab: in a real browser, also after the page was loaded again."""

from __future__ import annotations

import pytest

from runtime.harness import await_condition

CELL = """import ipywidgets as widgets
from scaleml.lab.output import Output
from scaleml.lab.report import VIEW
output, found = Output(), []
more = widgets.Button(description="More")
box = widgets.VBox([output.widget, more, said := widgets.Label("found 0")])

def bundle():
    text = f"found {len(found)} </script><b>"
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    return {VIEW: view, "text/plain": text, "text/html": f"<p>{text}</p>"}

def find(_):
    found.append(1)
    output.replace(bundle())
    said.value = f"found {len(found)}"

more.on_click(find)
output.show(bundle())"""

WHEN_TOLD = """from pathlib import Path
from tornado.ioloop import PeriodicCallback

def look():
    if Path("find").exists():
        Path("find").unlink()
        find(None)
        Path("found").touch()

looks = PeriodicCallback(look, 50)
looks.start()"""


def saved(notebook):
    """Save the notebook, and return what its file has of the display."""
    notebook.save()
    (output,) = notebook.saved()["cells"][1]["outputs"]
    return output["data"]


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_the_file_follows_also_a_page_that_was_loaded_again(jupyter):
    with jupyter.notebook("output", ["print('first')", CELL]) as notebook:
        notebook.run_all("found 0")
        notebook.press("More")
        notebook.wait("found 1")
        assert await_condition(lambda: "found 1 </script>" in "".join(saved(notebook)["text/plain"]), 60)
        notebook.reopen("found 1")
        notebook.press("More")
        notebook.wait("found 2")
        assert await_condition(lambda: "found 2 </script>" in "".join(saved(notebook)["text/plain"]), 60)
        assert "found 2 </script><b>" in "".join(saved(notebook)["text/html"])
        assert "application/vnd.jupyter.widget-view+json" in saved(notebook)
        notebook.press("More")
        notebook.wait("found 3")
        assert await_condition(lambda: "found 3 </script>" in "".join(saved(notebook)["text/plain"]), 60)
        assert notebook.errors == []
        assert notebook.tracebacks() == []


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_what_was_found_while_no_page_was_open_is_kept_by_the_next_one(jupyter):
    with jupyter.notebook("closed", ["print('first')", CELL, WHEN_TOLD]) as notebook:
        notebook.run_all("found 0")
        notebook.save()
        notebook.page.goto("about:blank")
        (jupyter.folder / "find").touch()
        assert await_condition((jupyter.folder / "found").exists, 60)
        notebook.reopen("found 1")
        assert await_condition(lambda: "found 1 </script>" in "".join(saved(notebook)["text/plain"]), 60)
        assert notebook.errors == []
