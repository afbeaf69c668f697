"""Roster: the labs that live in this process, of which cell each is, and who trains on which cluster."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol


class Member(Protocol):
    """What is known of a lab."""

    @property
    def running(self) -> bool:
        """Whether a comparison is under way."""

    @property
    def cell(self) -> Cell | None:
        """The cell that made it."""

    @property
    def cluster(self) -> str:
        """What tells its cluster from others."""


@dataclass(frozen=True)
class Cell:
    """A cell as it was run once.

    Parameters
    ----------
    key : str
        The same whenever the cell is run.
    message : str
        Of this time alone.
    number : int
        As the page shows it: ``[3]``.
    """

    key: str
    message: str
    number: int


_members: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def join(member: Member) -> None:
    """Take in a lab."""
    _members.add(member)


def leave(member: Member) -> bool:
    """Let a lab go; whether it was there."""
    known = member in _members
    _members.discard(member)
    return known


def holds(member: Member) -> bool:
    """Whether a lab was not closed yet."""
    return member in _members


def former(cell: Cell | None) -> Iterator[Any]:
    """Yield the labs that the same cell made when it was run before."""
    for member in list(_members):
        own = member.cell
        if cell is not None and own is not None and own.key == cell.key and own.message != cell.message:
            yield member


def trains_instead(member: Member) -> Any:
    """Return the other lab that trains on the same cluster, or None."""
    others = (other for other in list(_members) if other is not member and other.running)
    return next((other for other in others if other.cluster == member.cluster), None)


def cell() -> Cell | None:
    """Return the cell that runs now; None outside of notebooks."""
    from IPython import get_ipython

    shell = get_ipython()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else None
    if not parent:
        return None
    # Pages that do not say which cell it is at least say its text.
    key = parent.get("metadata", {}).get("cellId") or parent.get("content", {}).get("code")
    return Cell(str(key), str(parent.get("header", {}).get("msg_id")), int(shell.execution_count)) if key else None
