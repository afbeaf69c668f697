"""Settings of checkpoints: where, how often, how many."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from scaleml.checks import check_integer, check_number
from scaleml.representation import call_of

__all__ = ["Checkpoint", "absolute", "as_checkpoint"]

_UNITS: Final = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "hours": 3600.0}
_TIME: Final = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:::[^/]*)?://")


@final
@dataclass(frozen=True, repr=False)
class Checkpoint:
    """Where a run writes what it can go on from, how often, and how much of it stays.

    Each checkpoint is a folder of its own in `url`, named by its step: tensors as safetensors, and last a ``manifest.json`` with the
    size and the SHA-256 of every file. Nothing in it is a pickle.

    Parameters
    ----------
    url : str or path
        A folder that the client and all workers can read and write: a path on one machine or a shared file system, or a url of
        fsspec such as ``"s3://bucket/run-1"``, whose library (s3fs, gcsfs, adlfs, ...) is installed here and on all workers. Its
        credentials come from where that library looks for them. A new run needs an empty one.
    every : str or float
        How far apart checkpoints are: a time such as ``"30 s"`` or ``"10 min"``, or a number of epochs, such as ``1`` or ``0.5``.
        While one is still being written no other is begun. A run that ends or is stopped writes one more.
    keep : int
        How many stay. Older ones are removed when a newer one is complete.

    Raises
    ------
    ValueError, TypeError
        For a value that breaks its rule.

    Notes
    -----
    The ranks copy their state at the same step, which is all that training waits for; a thread of each rank's worker writes it. Ranks
    with a pace of their own (``ParameterServer``, ``Hogwild``, asynchronous ``Gossip``) meet once an epoch for it.

    Examples
    --------
    >>> Checkpoint("s3://bucket/run-1", every="10 min", keep=3)
    Checkpoint('s3://bucket/run-1', every='10 min', keep=3)
    >>> Checkpoint("s3://bucket/run-1", every=1).epochs
    1.0
    """

    url: str | os.PathLike[str]
    every: str | float = "30 s"
    keep: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.url, str | os.PathLike) or not str(self.url).strip():
            raise TypeError(
                f"url={self.url!r}: must be a path or a url such as 's3://bucket/run-1', where checkpoints are to be written"
            )
        check_integer("keep", self.keep, 1, rule="a positive integer, how many checkpoints stay")
        if isinstance(self.every, str):
            self._seconds(self.every)
        else:
            rule = "a positive number of epochs, or a time such as '30 s'"
            check_number("every", self.every, 0, open_low=True, rule=rule)

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return call_of(self)

    @property
    def epochs(self) -> float:
        """Epochs from one to the next; 0 where it goes by time."""
        return 0.0 if isinstance(self.every, str) else float(self.every)

    @property
    def seconds(self) -> float:
        """Seconds from one to the next; 0 where it goes by epochs."""
        return self._seconds(self.every) if isinstance(self.every, str) else 0.0

    @property
    def place(self) -> str:
        """The url, or the absolute path: workers have other working directories."""
        return absolute(self.url)

    @staticmethod
    def _seconds(every: str) -> float:
        found = _TIME.fullmatch(every.lower())
        unit = None if found is None else found[2] if found[2] in _UNITS else found[2].removesuffix("s")
        unit = {"second": "s", "minute": "min", "hour": "h"}.get(unit or "", unit)
        if found is None or unit not in _UNITS or float(found[1]) <= 0:
            raise ValueError(
                f"every={every!r}: must be a time such as '30 s', '10 min' or '1 h', or a number of epochs such as 1"
            )
        return float(found[1]) * _UNITS[unit]


def as_checkpoint(given: object) -> Checkpoint | None:
    """Return what ``checkpoint=`` was given as settings; None for none."""
    if given is None or isinstance(given, Checkpoint):
        return given
    if isinstance(given, str | os.PathLike):
        return Checkpoint(given)
    raise TypeError(
        f"checkpoint={given!r}: must be a folder's path or url, such as 'checkpoints' or 's3://bucket/run-1', or "
        "scaleml.checkpoint.Checkpoint(url, every='10 min', keep=3)"
    )


def absolute(url: str | os.PathLike[str]) -> str:
    """Return a path as it is seen from any working directory; a url without the slash at its end.

    Examples
    --------
    >>> absolute("s3://bucket/run-1/"), absolute("file:///data/run-1")
    ('s3://bucket/run-1', '/data/run-1')
    """
    text = str(url)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    elif _URL.match(text):
        return text.rstrip("/")
    return str(Path(text).expanduser().absolute())
