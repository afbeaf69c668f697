"""Tables of short strings, as plain text and as HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scaleml.escaping import escape, printable
from scaleml.telemetry.glossary import WORDS


def plain(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Aligned text: the first column to the left, the others to the right.

    >>> print(plain(("run", "loss"), [("Serial()", "0.2"), ("AllReduce()", "0.25")]))
    run          loss
    Serial()      0.2
    AllReduce()  0.25
    """
    rows = [[printable(cell) for cell in row] for row in (head, *cells)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def html(head: Sequence[str], cells: Sequence[Sequence[str]], strong: int | None = None) -> str:
    """A table that reads on light and dark pages; row number `strong` is set in bold. Everything is escaped."""
    # The first column may hold long labels: they wrap, as the names of columns do.
    least = min(12, max(len(row[0]) for row in (head, *cells)) // 2)
    styles = [f"padding:3px 4px;text-align:left;min-width:{least}em"]
    styles += ["padding:3px 4px;text-align:right"] * (len(head) - 1)
    names = [re.sub(r"/(?=\w{4})", "/<wbr>", escape(cell)) for cell in head]
    top = "".join(
        f'<th style="{style};white-space:normal;vertical-align:bottom"{_tip(word)}>{name}</th>'
        for style, name, word in zip(styles, names, head, strict=True)
    )
    body = []
    for n, row in enumerate(cells):
        bold = ";font-weight:600" if n == strong else ""
        tds = (
            f'<td style="{style}{bold}{";white-space:nowrap" if i else ""}">{escape(cell)}</td>'
            for i, (style, cell) in enumerate(zip(styles, row, strict=True))
        )
        body.append(f"<tr>{''.join(tds)}</tr>")
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;font-size:0.86em;font-variant-numeric:tabular-nums">'
        f"<thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _tip(word: str) -> str:
    return f' title="{escape(WORDS[word])}"' if word in WORDS else ""
