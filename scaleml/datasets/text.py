"""Texts as rows of token numbers: words hashed to a vocabulary, padded to one length; and sentences that every installation has."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["VOCABULARY", "docstrings", "tokens"]

VOCABULARY: Final = 4096
"""Token numbers: 0 stands where a text has ended."""

PACKAGES: Final = {"dask": "dask", "numpy": "numpy", "pandas": "pandas", "scikit-learn": "sklearn", "scipy": "scipy"}
"""Whose sentences are told apart: what scaleml needs is there wherever it is."""

_EACH: Final = 1500
_WORD: Final = re.compile(r"[a-z]+")
_QUOTED: Final = re.compile(r'"""(.*?)"""', re.DOTALL)
_SENTENCE: Final = re.compile(r"(?<![\w.`])[A-Z][a-z]+(?:[ \n]+[\w,;:'()/-]+){5,40}?\.(?=\s|$)")
_HEADINGS: Final = frozenset(
    ("Arguments", "Attributes", "Examples", "Notes", "Parameters", "Raises", "References", "Returns", "See", "Yields")
)
_GIVEN_AWAY: Final = frozenset(
    ("da", "dask", "dataframe", "dd", "ndarray", "np", "numpy", "pandas", "pd", "scikit", "scipy", "sklearn")
)


def tokens(texts: Sequence[str], length: int, vocabulary: int = VOCABULARY) -> dict[str, NDArray[Any]]:
    """Return texts as rows of token numbers, as a model of several inputs takes them.

    Parameters
    ----------
    texts : sequence of str
    length : int
        Words of a text that count; those after them are left out.
    vocabulary : int
        Token numbers are below it; words share some by chance.

    Returns
    -------
    dict
        ``tokens``, (n, length) int32, each 1 or more, then 0 to the end; ``lengths``, (n,) int32, at least 1.

    Examples
    --------
    >>> found = tokens(["To be, or not to be", "?"], length=4)
    >>> found["lengths"].tolist(), (found["tokens"] > 0).tolist()
    ([4, 1], [[True, True, True, True], [False, False, False, False]])
    """
    found = np.zeros((len(texts), length), np.int32)
    lengths = np.ones(len(texts), np.int32)
    numbers: dict[str, int] = {}
    for row, text in enumerate(texts):
        words = _WORD.findall(text.lower())[:length]
        for word in words:
            if word not in numbers:
                numbers[word] = 1 + zlib.crc32(word.encode()) % (vocabulary - 1)
        found[row, : len(words)] = [numbers[word] for word in words]
        lengths[row] = max(1, len(words))
    return {"tokens": found, "lengths": lengths}


@lru_cache(maxsize=1)
def docstrings() -> tuple[list[str], NDArray[Any], str]:
    """Return sentences from the documentation of installed packages, from which of `PACKAGES` each is, and where they are from.

    Words that give a package's name away are left out.
    """
    texts: list[str] = []
    labels: list[str] = []
    for name, module in PACKAGES.items():
        mine = list(dict.fromkeys(islice(_sentences(module), 2 * _EACH)))[:_EACH]
        texts += mine
        labels += [name] * len(mine)
    whose = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return texts, np.array(labels), f"sentences from the documentation of {whose}: whose are they?"


def _sentences(module: str) -> Iterator[str]:
    spec = find_spec(module)
    assert spec is not None
    paths = [path for folder in spec.submodule_search_locations or () for path in sorted(Path(folder).rglob("*.py"))]
    for place in np.random.default_rng(0).permutation(len(paths)):  # a few files of all rooms are enough
        if "tests" in paths[place].parts:
            continue
        for quoted in _QUOTED.findall(paths[place].read_text(encoding="utf-8", errors="ignore")):
            for sentence in _SENTENCE.findall(quoted):
                words = sentence.split()
                if words[0] not in _HEADINGS:
                    yield " ".join(word for word in words if not _GIVEN_AWAY & set(_WORD.findall(word.lower())))
