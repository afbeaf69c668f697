"""HTML report of a comparison: a fragment for notebooks, and a page that needs nothing but itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scaleml.escaping import escape, printable
from scaleml.telemetry.bundle import data_uri
from scaleml.telemetry.comparison_like import ComparisonLike
from scaleml.telemetry.environment import Environment
from scaleml.telemetry.figures import comparison_figure, title
from scaleml.telemetry.formatting import count, percent, seconds
from scaleml.telemetry.gauge import Gauge
from scaleml.telemetry.held_out import held_out_sentences
from scaleml.telemetry.ledger import Ledger
from scaleml.telemetry.noise_scale import noise_sentence
from scaleml.telemetry.recovery import recovery_fragment, recovery_lines
from scaleml.telemetry.run_like import RunLike
from scaleml.telemetry.saved_file import write_whole
from scaleml.telemetry.tables import html as table
from scaleml.telemetry.terminal import plain_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.figure import Figure


_FOLDS = (
    ("workers", "threads", "rows/update", "rate", "rounds"),
    ("time", "to target", "cold"),
    ("speed-up", "95%", "efficiency"),
    ("loss", "score", "samples/s", "bytes/step"),
    ("compute", "wait", "comm", "staleness"),
)
_CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --soft: #59636e; --line: #d8dce0; --card: #f6f8fa;
        --accent: #0072B2 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181c; --ink: #e4e6e9; --soft: #9aa4af; --line: #3a3f46; --card: #1e2126; --accent: #56B4E9 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 82rem; background: var(--paper); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 1rem } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem }
.verdict { background: var(--card); border-left: 4px solid var(--accent); border-radius: 6px; padding: 1rem 1.25rem }
.verdict p { font-size: 1.1rem; font-weight: 600; margin: 0 } .verdict ul { margin: .6rem 0 0; padding-left: 1.2rem }
tbody tr { border-top: 1px solid var(--line) }
thead th { color: var(--soft); font-weight: 600 }
.note, .facts { color: var(--soft); font-size: .9rem } img { max-width: 100%; display: block; margin: .8rem 0 }
details { border: 1px solid var(--line); border-radius: 6px; padding: .5rem .9rem; margin: .6rem 0 }
summary { cursor: pointer } details table { margin: .5rem 0 } .error { color: #D55E00 }
"""


def fragment(comparison: ComparisonLike, foldable: bool = False) -> str:
    """The verdict and the table for a notebook's output: inline styles only, as style sheets are often stripped.

    With `foldable` the table is there twice, whole (class ``scaleml-wide``) and in three parts below each other (class
    ``scaleml-narrow``), for a style sheet that shows the one that fits.
    """
    verdict = comparison.verdict
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons)
    text = f'<p style="font-size:1.1em;margin:0.3em 0"><strong>{escape(verdict.headline)}</strong></p>'
    text += f'<ul style="margin:0.2em 0 0.8em">{reasons}</ul>' if reasons else ""
    if not comparison.runs:
        return text
    head, cells, note = comparison.lines()
    whole = table(head, cells, verdict.best)
    if foldable:
        whole = f'<div class="scaleml-wide">{whole}</div><div class="scaleml-narrow">{_folded(head, cells, verdict.best)}</div>'
    return text + whole + f'<p style="opacity:0.7;font-size:0.9em">{escape(note)}</p>'


def _folded(head: Sequence[str], cells: Sequence[Sequence[str]], strong: int | None) -> str:
    """The table in parts below each other, each with the strategies: what was reached, how fast, at what cost."""
    parts = []
    for names in _FOLDS:
        at = [head.index(name) for name in ("strategy", *names)]
        parts.append(table([head[i] for i in at], [[row[i] for i in at] for row in cells], strong))
    return "".join(parts)


def page(comparisons: Mapping[str, ComparisonLike]) -> str:
    """The whole report: of each comparison the verdict, table, figures, each run's ledger and who waited for whom.

    Parameters
    ----------
    comparisons : mapping of str to Comparison
        What each was about, such as the data set's name; with a single one the name may be empty.
    """
    sections = [_section(name, comparison, "h2" if name else "") for name, comparison in comparisons.items()]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Scaling strategies compared</title><style>{_CSS}</style></head>\n"
        f"<body><h1>Scaling strategies compared</h1>{''.join(sections)}</body></html>\n"
    )


def write(comparisons: Mapping[str, ComparisonLike], path: str | Path) -> Path:
    """Write a page whole or not at all, and return its path."""
    return write_whole(path, page(comparisons).encode())


def _section(name: str, comparison: ComparisonLike, heading: str) -> str:
    verdict = comparison.verdict
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons)
    parts = [f"<{heading}>{escape(name)}</{heading}>"] if heading else []
    parts.append(
        f'<section class="verdict"><p>{escape(verdict.headline)}</p>'
        + (f"<ul>{reasons}</ul>" if reasons else "")
        + "</section>"
    )
    if comparison.runs:
        head, cells, note = comparison.lines()
        draw = partial(_figure, comparison)
        parts += [
            "<h3>Numbers</h3>",
            table(head, cells, verdict.best),
            f'<p class="note">{escape(note)}</p>',
            "<h3>Curves</h3>",
            _picture(draw, "Loss against time and samples, ledger of every rank, throughput"),
            "<h3>Runs</h3>",
            *(_details(comparison.runs[one.middle], i == verdict.best) for i, one in enumerate(comparison.series)),
            "<h3>Where this was measured</h3>",
            _hardware(comparison),
        ]
    return "".join(parts)


def _figure(comparison: ComparisonLike, dark: bool) -> Figure:
    return comparison_figure(comparison, dark)


def _picture(draw: Callable[[bool], Figure], alt: str) -> str:
    """A figure in two dresses, of which the browser shows the one that suits the page; nothing without matplotlib."""
    try:
        light, dark = (data_uri(draw(is_dark), dpi=130) for is_dark in (False, True))
    except ImportError as error:
        return f'<p class="note">{escape(str(error))}</p>'
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    return f'<picture>{source}<img alt="{escape(alt)}" src="{light}"></picture>'


def run_fragment(run: RunLike) -> str:
    """One run for a notebook's output or a report: where it ran, its ledger, who waited for whom, what changed."""
    ledger = Ledger(run.history)
    facts = [
        run.state,
        f"{run.workers} worker{'s' * (run.workers != 1)} with {run.threads} thread{'s' * (run.threads != 1)} each",
        f"{run.hosts} host{'s' * (run.hosts != 1)}",
        f"{count(run.n_params)} parameters",
        *([run.settings] if run.settings else []),
        f"trained for {seconds(float(run.train_seconds or 0))}",
    ]
    if run.placing_seconds is not None:
        facts.append(f"data placed and ranks started in {seconds(float(run.placing_seconds))}")
    body = f'<p class="facts">{escape(" · ".join(facts))}</p>'
    if run.error is not None:
        body += f'<p class="error">{escape(str(run.error))}</p>'
    if said := held_out_sentences(run):
        body += f'<p class="facts">{escape(" ".join(said))}</p>'
    if len(ledger.ranks):
        body += table(*ledger.lines())
        body += (
            f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in ledger.sentences())}</ul>"
            if ledger.sentences()
            else ""
        )
        body += f'<p class="facts">{escape(noise_sentence(run.history.noise_scale))}</p>'
    else:
        body += '<p class="note">It took no step.</p>'
    body += recovery_fragment(run.history.recoveries)
    if run.history.marks:
        changes = "".join(f"<li>{escape(text)}</li>" for text in _changes(run))
        body += f'<p class="facts">What changed in mid-run:</p><ul>{changes}</ul>'
    return body


def run_text(run: RunLike) -> str:
    """One run for a terminal: how it stands, and its ledger."""
    parts = [plain_line(run, Gauge(run).read())]
    parts += ["\n".join(said)] if (said := held_out_sentences(run)) else []
    parts.append(str(Ledger(run.history)))
    if len(run.history):
        parts.append(noise_sentence(run.history.noise_scale))
    if run.history.recoveries:
        parts.append("\n".join(["Recoveries:", *(f"  {text}" for text in recovery_lines(run.history.recoveries))]))
    if run.history.changes:
        parts.append("\n".join(["What changed in mid-run:", *(f"  {text}" for text in _changes(run))]))
    return printable("\n\n".join(parts))


def _changes(run: RunLike) -> list[str]:
    return [
        f"after {seconds(change.time)}{f', from step {change.step}' if change.step >= 0 else ''}: {change.text}"
        for change in run.history.changes
    ]


def _details(run: RunLike, recommended: bool) -> str:
    shares = Ledger(run.history).shares()
    spent = ", ".join(f"{part} {percent(share)}" for part, share in shares.items() if share >= 0)
    about = title(run) + (f": {spent}" if spent else "")
    is_open = " open" if recommended or run.error is not None else ""
    return f"<details{is_open}><summary>{escape(about)}</summary>{run_fragment(run)}</details>"


def _hardware(comparison: ComparisonLike) -> str:
    """What the numbers depend on: the runs' cores and hosts, and where the client was."""
    runs = comparison.runs
    used = sorted(
        {f"{run.cores} core{'s' * (run.cores != 1)} on {run.hosts} host{'s' * (run.hosts != 1)}" for run in runs}
    )
    where = comparison.environment or Environment.now()
    return f'<p class="facts">{escape("; ".join(used))} · {escape(str(where))}</p>'
