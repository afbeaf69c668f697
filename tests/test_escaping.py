"""What users name, made harmless on terminals, in HTML and in pictures: by itself, and on every way out of a comparison."""

from __future__ import annotations

import html
import io
import pickle
import sys
import unicodedata

import pytest
from rich.console import Console

from scaleml import RunFailed
from scaleml.cluster.errors import StartFailed
from scaleml.escaping import escape, picture, printable
from scaleml.telemetry import Comparison
from scaleml.telemetry.bundle import png
from scaleml.telemetry.fitting import FitProgress, Lines
from scaleml.telemetry.gauge import Gauge
from scaleml.telemetry.ledger import Ledger
from scaleml.telemetry.progress_views import Lane, PlainView, Standing, TerminalView
from scaleml.telemetry.progress_views import html as lanes_html
from scaleml.telemetry.recorded_run import RecordedRun
from scaleml.telemetry.report import fragment, run_fragment, run_text
from scaleml.telemetry.tables import html as table
from scaleml.telemetry.terminal import plain_line, view
from telemetry_fakes import made

EVIL = "\x1b]0;gone\x07\x1b[2J\r\x9b31m [red]$x_{$ \u202e<b>\ud800"


def harmless(text: str) -> bool:
    """Whether nothing of it is a terminal's to obey, or cannot be written, by Unicode's own categories."""
    hidden = {
        character for character in text if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
    }
    return not hidden and "\u202e" not in text


def test_every_character_that_is_obeyed_is_written_out_and_no_other() -> None:
    for code in (*range(0x3000), *range(0xD7F0, 0xE010), 0x1F600, sys.maxunicode):
        character = chr(code)
        obeyed = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") and character not in "\n\t"
        turns = unicodedata.bidirectional(character) in {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
        assert (printable(character) != character) == (obeyed or turns), hex(code)
    assert printable(printable(EVIL)) == printable(EVIL)
    assert printable(EVIL).encode().decode("unicode_escape") == EVIL.encode("unicode_escape").decode("unicode_escape")


def test_html_shows_what_was_said() -> None:
    assert html.unescape(escape(EVIL)) == printable(EVIL)
    assert not set("<>\"'") & set(escape("<i a='b' c=\"d\">"))


@pytest.mark.parametrize("text", ["$x_{$ and $", "$1 to $2", r"\$5", "a_b^c", EVIL])
def test_a_picture_shows_dollars(text: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    shown = figure.text(0, 0, picture(text))
    assert shown._preprocess_math(shown.get_text()) == (printable(text), False)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    runs = [
        made(f"{EVIL}()", 2, settings=EVIL, score_name=EVIL, optimizer=EVIL),
        made(f"Failing({EVIL})", 2, state="failed", error=f"rank 1: {EVIL}"),
    ]
    runs[0].history.mark(1.0, EVIL, 3, "setting")
    return Comparison(runs)


def test_terminals(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    good, failed = comparison.runs
    for run in (good, failed):
        said = [run_text(run), plain_line(run, Gauge(run).read()), str(Ledger(run.history)), repr(RecordedRun.of(run))]
        assert all(map(harmless, said)), said
    for error in (RunFailed(f"rank 1: {EVIL}"), StartFailed(EVIL), pickle.loads(pickle.dumps(RunFailed(EVIL)))):
        assert harmless(str(error))
        assert "[red]$x_{$" in str(error)
    for said in (str(comparison), repr(comparison), comparison.verdict, *comparison.verdict.reasons):
        assert harmless(said), said
    assert "[red]$x_{$" in str(comparison)

    lane = Lane(EVIL, "#ffffff", 0.5, EVIL, EVIL, "failed", EVIL)
    standing = Standing(EVIL, (lane,))
    assert harmless(standing.text())
    stream = io.StringIO()
    PlainView(stream).close(standing)
    assert harmless(stream.getvalue())
    progress = FitProgress(EVIL, 3, 1, [0.5], where=EVIL)
    assert harmless(progress.text())
    Lines().show(progress)
    assert harmless(capsys.readouterr().out)


def test_rich_consoles(comparison: Comparison) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=400, force_terminal=False)  # it writes no escapes of its own
    console.print(view(comparison, 400))
    TerminalView(console).close(Standing(EVIL, (Lane(EVIL, "#ffffff", 0.5, EVIL, EVIL, "failed", EVIL),)))
    assert harmless(stream.getvalue())
    assert stream.getvalue().count("[red]$x_{$") >= 5, "taken for markup"


def test_pages(comparison: Comparison, tmp_path) -> None:
    pages = [
        comparison.to_html(tmp_path / "page.html").read_text(),
        fragment(comparison),
        run_fragment(comparison.runs[1]),
        lanes_html(Standing(EVIL, (Lane(EVIL, "#ffffff", 0.5, EVIL, EVIL),))),
        FitProgress(EVIL, 3, where=EVIL).html(),
        table((EVIL,), [(EVIL,)]),
    ]
    for text in pages:
        assert harmless(text)
        assert "<b>" not in text
        assert escape(EVIL) in text


def test_pictures(comparison: Comparison) -> None:
    figure = comparison.plot()
    assert len(png(figure)) > 1000
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert any("red]\\$x" in label for label in labels)


def test_the_demo_shows_names_of_files_and_columns_as_they_are(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    import scaleml
    from scaleml import __main__ as demo

    file = tmp_path / "[red]data.csv"
    file.write_text("[bold]a,b,\x1b[2J$target$\n" + "1,2,0\n3,1,1\n" * 20)
    monkeypatch.setattr(scaleml, "compare", lambda *_, **__: None)
    stream = io.StringIO()
    part = demo.Part(str(file))
    demo._compare(part, None, [], 2, {"seed": 0}, Console(file=stream, width=300, force_terminal=False))
    assert harmless(stream.getvalue())
    assert "[red]data.csv" in stream.getvalue()
    assert "$target$" in stream.getvalue()
    for strategies in ("Serial()] + [1", "Serial(", "open('x')"):
        with pytest.raises(click.BadParameter):
            demo.read_strategies(strategies)
