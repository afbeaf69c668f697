"""Escaping: what comes from a user's data, files, names and errors, made harmless where it is shown: terminals, HTML, pictures."""

from __future__ import annotations

import html
import re
from typing import Final

# What a terminal obeys, what turns the direction of a line, what ends it unseen, and halves of characters that no encoding takes.
_UNSEEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Return text as a terminal may have it: what it would obey stands there as Python writes it.

    Examples
    --------
    >>> printable("loss \x1b[2J of a\tb")
    'loss \\x1b[2J of a\tb'
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def escape(text: object) -> str:
    """Return text as HTML shows it, in an element or in a quoted attribute.

    Examples
    --------
    >>> escape("<b> & 'c'")
    '&lt;b&gt; &amp; &#x27;c&#x27;'
    """
    return html.escape(printable(text))


def picture(text: object) -> str:
    r"""Return text as matplotlib shows it: dollars are dollars, not formulas.

    Examples
    --------
    >>> picture("from $1 to $2")
    'from \\$1 to \\$2'
    """
    return printable(text).replace("$", r"\$")
