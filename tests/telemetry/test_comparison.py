"""The comparison: its table against runs with known answers, and every way to show it."""

import base64
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from scaleml.telemetry import Comparison
from scaleml.telemetry.bundle import png
from scaleml.telemetry.curves import loss_curve
from scaleml.telemetry.place import Place
from scaleml.telemetry.report import run_fragment, run_text
from telemetry_fakes import FakeRun, in_rounds, made

COLUMNS = (
    *("strategy", "workers", "loss", "score", "time_s", "time_to_target_s", "samples_per_s", "speedup", "efficiency"),
    *("compute", "wait", "comm", "bytes_per_step", "staleness"),
)


CONTENDERS = [
    ("Serial()", 1, {"rate": 1000, "evaluations": 101}),
    ("AllReduce()", 4, {"rate": 3000, "comm": 0.1, "straggler": 2, "evaluations": 101}),
    ("LocalSGD(period=8)", 4, {"rate": 3600, "slowness": 2.0, "staleness": 1.5, "evaluations": 101}),
]


@pytest.fixture
def rounds():
    """The same contenders in six rounds, each a little slower or faster."""
    return in_rounds(CONTENDERS)


@pytest.fixture
def runs():
    """Loss falls to 0.2 + 0.5 / e after 1000 rows in all of them, but for LocalSGD, which needs twice the rows."""
    return [made(label, workers, **settings) for label, workers, settings in CONTENDERS]


def test_the_table(runs):
    target = 0.25
    frame = Comparison(runs, target=target).table()
    assert set(COLUMNS) | {"threads", "cold_s", "rounds", "rows_an_update", "learning_rate"} <= set(frame.columns)
    rows = np.log(0.5 / 0.05) * 1000 * np.array([1, 1, 2])  # to the target
    np.testing.assert_allclose(frame["time_to_target_s"], rows / [1000, 3000, 3600], rtol=0.02)
    np.testing.assert_allclose(frame["samples_to_target"], rows, rtol=0.02)
    np.testing.assert_allclose(frame["samples_per_s"], [1000, 3000, 3600])
    np.testing.assert_allclose(frame["speedup"], frame["time_to_target_s"][0] / frame["time_to_target_s"])
    np.testing.assert_allclose(frame["efficiency"], frame["speedup"] / frame["workers"])
    np.testing.assert_allclose(frame["comm"], [0, 0.1, 0], atol=1e-9)
    np.testing.assert_allclose(frame["wait"], [0, 0.35 * 3 / 4, 0], atol=1e-9)
    np.testing.assert_allclose(frame["bytes_per_step"], [0, 804, 804])
    np.testing.assert_allclose(frame["staleness"], [0, 0, 1.5])
    np.testing.assert_allclose(frame["cold_s"], 10.4)
    np.testing.assert_allclose(frame["loss"], [run.history.evaluations["loss"][-1] for run in runs])
    assert frame.attrs["target"] == target


def test_the_table_of_rounds_has_medians_and_intervals(rounds):
    frame = Comparison(rounds, target=0.25).table()
    assert frame["strategy"].tolist() == [label for label, *_ in CONTENDERS]
    assert frame["rounds"].tolist() == [6, 6, 6]
    for entry, median in enumerate(frame["time_to_target_s"]):
        mine = [run.history for run in rounds if run.place.entry == entry]
        each = [loss_curve(history).crossing(0.25)[0] for history in mine]
        assert median == pytest.approx(np.median(each))
    assert (frame["speedup_low"][1:] < frame["speedup"][1:]).all()
    assert (frame["speedup_high"][1:] > frame["speedup"][1:]).all()
    assert frame["speedup"][1] == pytest.approx(3.0, rel=0.05)
    assert "Medians of 6 rounds." in str(Comparison(rounds, target=0.25))


def test_warm_ups_and_trials_do_not_count(rounds):
    early = made("AllReduce()", 4, seconds=1, rate=90000)
    early.place, early.placing_seconds = Place("one", 1, "warm-up"), 7.0
    tried = made("AllReduce()", 4, seconds=1, rate=90000)
    tried.place = Place("one", 1, "tuning")
    comparison = Comparison([early, tried, *rounds], target=0.25)
    assert (comparison.warm_ups, comparison.trials, len(comparison.runs)) == ((early,), (tried,), 18)
    frame = comparison.table()
    assert frame["time_to_target_s"].tolist() == Comparison(rounds, target=0.25).table()["time_to_target_s"].tolist()
    assert frame["cold_s"][1] == pytest.approx(frame["time_s"][1] + 7.0)  # the first start, data and all


def test_a_lucky_dip_is_not_there_yet(runs):
    dip = made("Gossip()", 4, final=0.6)
    dip.history.add_evaluation(10.1, 10100, 101, 0.1, 0)
    dip.history.add_evaluation(10.2, 10200, 102, 0.6, 0)
    dip.history.add_evaluation(10.3, 10300, 103, 0.6, 0)
    assert np.isnan(Comparison([*runs, dip], target=0.25).table()["time_to_target_s"][3])


def test_the_common_target_is_the_worst_best(runs):
    comparison = Comparison(runs)
    held = [run.history.evaluations["loss"][-3:] for run in runs]  # they fall to the end: the last three are the lowest
    assert comparison.target == pytest.approx(max(losses.max() for losses in held))
    assert comparison.table()["time_to_target_s"].notna().all()
    assert "No target was given" in comparison.verdict


def test_failed_and_hopeless_runs_do_not_set_the_target(runs):
    lost = made("Gossip()", 4, state="failed", error="rank 3 was lost", slowness=900.0)
    flat = made("Hogwild()", 4, start=0.7, final=0.9)
    assert Comparison([*runs, lost, flat]).target == Comparison(runs).target


def test_best_is_the_recommended_run_of_median_time(rounds, runs):
    comparison = Comparison(rounds, target=0.25)
    mine = sorted(
        (run for run in rounds if run.place.entry == 1), key=lambda run: loss_curve(run.history).crossing(0.25)
    )
    assert comparison.best is mine[2]
    assert comparison.verdict.startswith("Scale with AllReduce() on 4 workers")
    assert "Rank 2 held up the others" in comparison.verdict
    assert Comparison(runs, target=0.01).best is runs[1]  # nobody reached it: the closest


def test_training_losses_where_nothing_was_held_out():
    comparison = Comparison(
        [made("Serial()", held_out=False), made("AllReduce()", 2, rate=1900, held_out=False)], target=0.3
    )
    assert "training loss of 0.3" in comparison.verdict.headline
    assert "Training loss at the end" in str(comparison)
    assert comparison.table()["score"].isna().all()


def test_a_target_that_is_none():
    with pytest.raises(ValueError, match="target=nan: must be a finite number"):
        Comparison([], target=float("nan"))


def test_runs_that_did_nothing():
    comparison = Comparison(
        [FakeRun(state="starting", is_serial=True), FakeRun("AllReduce()", workers=2, state="starting")]
    )
    assert comparison.target is None
    assert len(comparison.table()) == 2
    assert "no run has taken a step" in str(comparison)
    assert "image/png" in comparison._repr_mimebundle_()


def test_plain_text_marks_what_stands_in(runs):
    text = str(Comparison([*runs, made("Gossip()", 9, final=0.4, rate=5000)], target=0.25))
    assert "(5.00x*)" in text
    assert "* samples a second" in text
    assert "In brackets: more workers than cores" in text


class Sources(HTMLParser):
    """All addresses that a page would load, and its unclosed tags."""

    VOID = frozenset({"meta", "img", "source", "br", "wbr", "link"})

    def __init__(self):
        super().__init__()
        self.found, self.open, self.tags, self.text = [], [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(page):
    parser = Sources()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_needs_nothing_but_itself(rounds, tmp_path):
    evil = made("Trial('<script>alert(1)</script>')", 2, state="failed", error="<img src=http://x.example/a.png> broke")
    for run in rounds:
        run.planned_faults = ({"name": "Slow"},)
        run.history.mark(1.0, "rank 2 <slowed>", kind="fault", fault={"name": "Slow"})
    path = Comparison([*rounds, evil], target=0.25).to_html(tmp_path / "report.html")
    page = path.read_text(encoding="utf-8")
    found = parsed(page)
    assert found.found
    assert all(address.startswith("data:image/png;base64,") for address in found.found)
    assert not re.search(r"@import|url\(", page)
    assert "script" not in found.tags
    text = " ".join(found.text)
    for wanted in ("Scale with AllReduce()", "<script>alert(1)</script>", "broke", "rank 2 <slowed>", "4 cores on 1 host",
                   "Rank 0 waited for rank 2", "201 parameters", "prefers-color-scheme: dark"):  # fmt: skip
        assert wanted in text, wanted


def test_the_bundle_for_notebooks(rounds):
    bundle = Comparison(rounds, target=0.25)._repr_mimebundle_(include=None, exclude=None)
    assert set(bundle) == {"text/plain", "text/html", "image/png"}
    picture = base64.b64decode(bundle["image/png"], validate=True)
    assert picture.startswith(b"\x89PNG\r\n")
    found = parsed(bundle["text/html"])
    assert found.found == ["data:image/png;base64," + bundle["image/png"]]
    assert {"table", "img", "strong"} <= found.tags
    assert not {"style", "script"} & found.tags
    for form in ("text/plain", "text/html"):
        assert "Scale with AllReduce()" in bundle[form]
        assert "LocalSGD(period=8)" in bundle[form]


def test_one_run_alone(runs):
    page, text = run_fragment(runs[1]), run_text(runs[1])
    assert "4 workers with 1 thread each" in page
    for shown in (page, text):
        assert "Rank 2 held up the others" in shown
    parsed(page)
    assert "It took no step." in run_fragment(FakeRun())
    assert "failed: lost &lt;it&gt;" not in run_text(FakeRun(state="failed", error="lost <it>"))


def test_the_figure(runs):
    figure = Comparison(runs, target=0.25).plot()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "Held-out loss against time",
        "Held-out loss against samples",
        "Where each rank's time went",
        "Throughput",
    ]
    lines = figure.axes[0].get_lines()[:3]
    for line, run in zip(lines, runs, strict=True):
        np.testing.assert_allclose(line.get_xdata(), run.history.evaluations["time"])
        np.testing.assert_allclose(line.get_ydata(), run.history.evaluations["loss"])
    bars = figure.axes[2].patches
    assert sum(bar.get_width() for bar in bars) == pytest.approx(10 * (1 + 4 + 4))
    assert png(figure).startswith(b"\x89PNG")
    looks = {(line.get_color(), line._dash_pattern[1] and tuple(line._dash_pattern[1])) for line in lines}
    assert len(looks) == 3


def test_the_figure_of_rounds_has_each_behind_their_median(rounds):
    lines = Comparison(rounds, target=0.25).plot().axes[0].get_lines()
    thin, thick = [line for line in lines if line.get_lw() < 1], [line for line in lines if line.get_lw() > 1.5]
    assert (len(thin), len(thick)) == (18, 3)
    for entry, line in enumerate(thick):
        mine = [loss_curve(run.history) for run in rounds if run.place.entry == entry]
        at = np.median([np.interp(2000, curve.samples, curve.time) for curve in mine])
        assert np.interp(at, line.get_xdata(), line.get_ydata()) == pytest.approx(
            np.median([np.interp(2000, curve.samples, curve.loss) for curve in mine]), rel=0.02
        )


def test_a_diverged_run_does_not_flatten_the_others(runs):
    bad = made("Hogwild()", 4)
    bad.history.add_evaluation(11, 12000, 101, 1e9, 0)
    bad.history.add_evaluation(12, 13000, 102, np.nan, 0)
    low, high = Comparison([*runs, bad]).plot().axes[0].get_ylim()
    assert low < 0.25
    assert high < 2


def test_many_ranks_share_a_bar():
    figure = Comparison([made("Serial()"), made("AllReduce()", 64, steps=4, cores=64)]).plot()
    ticks = [tick.get_text() for tick in figure.axes[2].get_yticklabels()]
    assert ticks == ["rank 0", "mean of 64"]


def test_without_matplotlib_there_is_no_picture_and_no_failure(runs, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    comparison = Comparison(runs, target=0.25)
    assert set(comparison._repr_mimebundle_()) == {"text/plain", "text/html"}
    assert r"pip install &quot;.[lab]&quot;` in a checkout" in comparison.to_html(tmp_path / "report.html").read_text()
    with pytest.raises(ImportError, match=r"\.\[lab\]"):
        comparison.plot()


def test_importing_it_is_light():
    code = "import scaleml.telemetry.comparison, scaleml.telemetry.terminal, scaleml.telemetry.report, sys; "
    code += "print(*[n for n in ('pandas', 'matplotlib', 'rich', 'sklearn', 'scipy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
