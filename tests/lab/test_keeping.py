"""The row that takes things away: the table as CSV, the program, names; read off its traits."""

from __future__ import annotations

import base64
import csv
import io
from html import unescape
from html.parser import HTMLParser

import pandas as pd
import pytest

from lab.clicking import finished
from scaleml.lab.keeping import FILE, Keeping, contenders, csv_of
from scaleml.lab.kept_runs import renamed, without
from scaleml.lab.lanes import Lanes
from scaleml.strategies import AllReduce, Serial
from scaleml.telemetry import Comparison
from scaleml.telemetry.palette import strokes
from scaleml.telemetry.recorded_run import RecordedRun
from telemetry_fakes import in_rounds, made

STRATEGIES = [("Serial()", 1, {"rate": 1000.0}), ("AllReduce()", 2, {"rate": 1800.0})]
PROGRAM = 'print("<b>&</b>")\n'


class Elements(HTMLParser):
    """The elements of a text, each with its attributes and the text in it."""

    def __init__(self, text):
        super().__init__()
        self.found, self._open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append({"tag": tag, "text": "", **dict(attrs)})
        self._open.append(self.found[-1])

    def handle_endtag(self, tag):
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def one(self, tag):
        (found,) = (element for element in self.found if element["tag"] == tag)
        return found


@pytest.fixture
def comparison():
    return Comparison([RecordedRun.of(run) for run in in_rounds(STRATEGIES, 3)])


@pytest.fixture
def keeping():
    calls = []
    one = Keeping(lambda *call: calls.append(call), lambda *call: calls.append(call))
    one.calls = calls
    return one


def test_the_link_holds_the_table(keeping, comparison):
    keeping.show(comparison, PROGRAM, busy=False)
    link = Elements(keeping.links.value).one("a")
    assert link["download"] == FILE
    assert link["text"] == "Download CSV"
    kind, _, body = link["href"].partition(",")
    assert kind == "data:text/csv;charset=utf-8;base64"
    frame = pd.read_csv(io.BytesIO(base64.b64decode(body)))
    pd.testing.assert_frame_equal(frame, comparison.table(), check_dtype=False, check_exact=True)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x","y")'])
def test_no_label_is_a_formula(comparison, name):
    runs = renamed(comparison.runs, ("one", 1), name)
    rows = list(csv.DictReader(io.StringIO(csv_of(Comparison(runs)))))
    assert [row["strategy"] for row in rows] == ["Serial()", f"'{name}"]
    assert float(rows[1]["loss"]) > 0


def test_the_program_is_shown_as_it_is_and_copied_by_a_button(keeping, comparison):
    keeping.show(comparison, PROGRAM, busy=False)
    elements = Elements(keeping.links.value)
    assert elements.one("pre")["text"] == PROGRAM
    button = elements.one("button")
    assert button["text"] == "Copy as code"
    assert "navigator.clipboard.writeText(code.textContent)" in button["onclick"]
    assert elements.one("span")["role"] == "status"
    assert not any(element["tag"] == "b" for element in elements.found)


def test_nothing_can_be_taken_while_a_comparison_runs(keeping, comparison):
    keeping.show(comparison, PROGRAM, busy=True)
    elements = Elements(keeping.links.value)
    buttons = [element for element in elements.found if element["tag"] == "button"]
    assert [button["text"] for button in buttons] == ["Download CSV", "Copy as code"]
    assert all("disabled" in button and "onclick" not in button for button in buttons)
    assert PROGRAM not in unescape(keeping.links.value)
    assert all(one.disabled for one in (keeping.menu, keeping.name, keeping.rename, keeping.delete))
    keeping.show(comparison, PROGRAM, busy=False)
    assert not any(one.disabled for one in (keeping.menu, keeping.name, keeping.rename, keeping.delete))
    assert "href" in Elements(keeping.links.value).one("a")


def test_it_is_not_seen_before_there_are_runs(keeping, comparison):
    keeping.show(Comparison([]), "", busy=False)
    assert keeping.box.layout.display == "none"
    keeping.show(comparison, PROGRAM, busy=False)
    assert keeping.box.layout.display is None
    keeping.show(Comparison([]), "", busy=False)
    assert keeping.box.layout.display == "none"
    assert keeping.menu.options == ()
    keeping.rename.click()
    keeping.delete.click()
    assert keeping.calls == []


def test_contenders_are_renamed_and_deleted_by_their_key(keeping, comparison):
    keeping.show(comparison, PROGRAM, busy=False)
    assert [text for text, _ in keeping.menu.options] == ["Serial()", "AllReduce()"]
    assert keeping.menu.value == ("one", 0), "the first is chosen"
    keeping.menu.value = ("one", 1)
    keeping.name.value = "mine"
    keeping.rename.click()
    keeping.delete.click()
    assert keeping.calls == [(("one", 1), "mine"), (("one", 1),)]
    keeping.show(Comparison(renamed(comparison.runs, *keeping.calls[0])), PROGRAM, busy=False)
    assert [text for text, _ in keeping.menu.options] == ["Serial()", "mine"]
    assert keeping.menu.value == ("one", 1), "who was chosen stays chosen"
    assert keeping.name.value == ""
    keeping.show(Comparison(without(comparison.runs, ("one", 1))), PROGRAM, busy=False)
    assert keeping.menu.value == ("one", 0), "and who is gone is not"


def test_contenders_of_one_name_are_told_apart():
    again = in_rounds(STRATEGIES, 1)
    for run in again:
        run.place = type(run.place)("two", run.place.entry)
    runs = Comparison([*in_rounds(STRATEGIES, 2), *again, made("Serial()")]).runs
    assert contenders(runs) == [
        ("Serial()", ("one", 0)),
        ("AllReduce()", ("one", 1)),
        ("Serial() (2)", ("two", 0)),
        ("AllReduce() (2)", ("two", 1)),
        ("Serial() (3)", ("alone", 0)),
    ]


def test_only_what_changed_is_renewed(keeping, comparison):
    keeping.show(comparison, PROGRAM, busy=False)
    sent = []
    for widget in (keeping.links, keeping.menu, keeping.name, keeping.rename, keeping.delete, keeping.box.layout):
        widget.observe(sent.append)
    keeping.show(Comparison(comparison.runs), PROGRAM, busy=False)
    assert sent == []
    keeping.show(comparison, PROGRAM + "print()\n", busy=False)
    assert [change["owner"] for change in sent] == [keeping.links]


def test_every_control_has_a_name(keeping):
    assert [one.description for one in (keeping.menu, keeping.name, keeping.rename, keeping.delete)] == [
        "run",
        "new name",
        "Rename",
        "Delete",
    ]


def test_a_labs_runs_are_renamed_and_stay_runs(lab):
    one = finished(lab(strategies=[Serial(threads=1), AllReduce()]))
    key = contenders(one.runs)[1][1]
    found = renamed(one.runs, key, "mine")
    assert [run.label for run in found] == ["Serial(threads=1)", "mine"]
    assert [run.label for run in one.runs] == ["Serial(threads=1)", "AllReduce()"]
    assert type(found[1]) is type(one.runs[1])
    assert found[1].plan == one.runs[1].plan
    assert found[1].wait(1).state == "finished"
    assert "mine" in str(Comparison(found))
    lanes = Lanes()
    lanes.follow(found)
    assert [stroke.color for stroke in lanes.strokes] == [
        stroke.color for stroke in strokes(["Serial()", "AllReduce()"])
    ]


CELL = """import scaleml, ipywidgets as widgets
from scaleml.lab import style
from scaleml.lab.keeping import Keeping
from scaleml.telemetry import Comparison
from sklearn.datasets import load_iris
runs = scaleml.compare(scaleml.LinearModel(), *load_iris(return_X_y=True), [scaleml.AllReduce()], repeats=1).runs
said = widgets.Label("here")
def rename(key, name):
    said.value = f"{key[1]} is now {name}"
keeping = Keeping(rename, delete=print)
keeping.show(Comparison(runs), "x < 'y' & z\\n", busy=False)
lab = widgets.VBox([widgets.HTML(style.SHEET), keeping.box, said])
lab.add_class("scaleml-lab")
lab"""


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_a_page_copies_downloads_and_renames(jupyter):
    with jupyter.notebook("keeping", [CELL]) as notebook:
        page = notebook.page
        notebook.run_all("here")
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy as code").click()
        notebook.wait("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == "x < 'y' & z\n"
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        assert not page.locator(".scaleml-links pre").is_visible()
        page.get_by_role("button", name="Copy as code").click()
        notebook.wait("The browser does not let it be copied")
        assert page.locator(".scaleml-links pre").is_visible()
        assert page.evaluate("getSelection().toString()").strip() == "x < 'y' & z"
        with page.expect_download() as download:
            page.get_by_role("link", name="Download CSV").click()
        assert download.value.suggested_filename == FILE
        assert list(pd.read_csv(download.value.path())["strategy"]) == ["AllReduce()"]
        page.get_by_label("new name").fill("mine")
        page.get_by_role("button", name="Rename").click()
        notebook.wait("0 is now mine")
        assert page.get_by_label("run", exact=True).locator("option").all_inner_texts() == ["AllReduce()"]
        assert notebook.errors == []
        assert notebook.tracebacks() == []
