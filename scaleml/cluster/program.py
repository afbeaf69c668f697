"""A program: a user's function, what its ranks are told beside it, and how each of them ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Call = tuple[Callable[..., object], Sequence[object], Mapping[str, object]]
"""The function, and what it is called with."""


@dataclass(frozen=True)
class ProgramSettings:
    """What all ranks of a program are told.

    Parameters
    ----------
    backend : str or None
        What is started before the function: one of `scaleml.frameworks.backend.BACKENDS`.
    port_range : tuple of int or None
        The first and last port that backends may listen on.
    result_limit : int
        Bytes that what the function returns may have.
    """

    backend: str | None
    port_range: tuple[int, int] | None
    result_limit: int


@dataclass(frozen=True)
class ProgramOutcome:
    """How a program's rank ended.

    Parameters
    ----------
    status : str
        ``finished`` or ``failed``.
    value : bytes
        What the function returned, pickled.
    error, trace : str
        Why it failed, and where.
    exception : bytes
        The exception itself, pickled; empty where it cannot be.
    """

    status: Literal["finished", "failed"]
    value: bytes = b""
    error: str = ""
    trace: str = ""
    exception: bytes = b""
    step: int = -1


class EarlyReturn(RuntimeError):
    """A rank's function has returned while another rank waits for it."""
