"""Tips: what a strategy, a codec or a setting means, in a sentence, read off the docstring of its class."""

from __future__ import annotations

import re
from functools import lru_cache
from inspect import cleandoc

_HEAD = re.compile(r"^(\w+(?:, \w+)*)(?: : .*)?$")


def about(kind: type) -> str:
    """Return the first sentence or two of a class's docstring.

    >>> from scaleml.strategies import Serial
    >>> bool(about(Serial))
    True
    """
    return _plain(cleandoc(kind.__doc__ or "").partition("\n\n")[0])


@lru_cache(maxsize=256)
def settings(kind: type) -> dict[str, str]:
    """Return what a numpydoc docstring says of each parameter, those of the classes that it derives from included.

    >>> from scaleml.strategies import LocalSGD
    >>> "period" in settings(LocalSGD)
    True
    """
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        said = _parameters(cleandoc(each.__doc__ or ""))
        found |= {name: text for name, text in said.items() if name not in found or not text.startswith("See ")}
    return found


def _parameters(text: str) -> dict[str, str]:
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-{3,}|\Z)", text, re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section[1].splitlines() if section else ():
        if line.strip() and not line[0].isspace():
            head = _HEAD.match(line.strip())
            names = head[1].split(", ") if head else []
        elif line.strip():
            for name in names:
                found[name] = _plain(f"{found.get(name, '')} {line}")
    return found


def _plain(text: str) -> str:
    """Take the marks of reStructuredText out."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", text)
    return re.sub(r"\s+", " ", text.replace("``", "").replace("`", "").replace("**", "")).strip()
