"""Display of histories and ledgers in notebooks: text, HTML and a picture of each."""

from __future__ import annotations

from scaleml.escaping import escape
from scaleml.telemetry.bundle import bundle, mimebundle
from scaleml.telemetry.history import History
from scaleml.telemetry.ledger import Ledger


@mimebundle.register
def _(history: History) -> dict[str, str]:
    from scaleml.telemetry.figures import loss_figure

    return bundle(repr(history), None, lambda: loss_figure([("", history)]))


@mimebundle.register
def _(ledger: Ledger) -> dict[str, str]:
    from scaleml.telemetry.figures import ledger_figure
    from scaleml.telemetry.tables import html

    notes = "".join(f"<li>{escape(text)}</li>" for text in ledger.sentences())
    body = html(*ledger.lines()) + (f"<ul>{notes}</ul>" if notes else "")
    return bundle(str(ledger), body, lambda: ledger_figure([("", ledger)]))
