"""Kept runs: which runs of a lab are one contender's, and what is left of them once one was deleted or renamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, Self, TypeVar

from scaleml.telemetry.place import Place
from scaleml.telemetry.verdict.series import ALONE

Key = tuple[str, int]
"""Of a contender: its comparison and its place in that; or, of a run without a place, ``"alone"`` and the number of such runs before it."""
LONGEST: Final = 80
"""Characters of a name: it stands in tables and beside lines."""


class Placed(Protocol):
    """A run of a comparison, or one that stands alone."""

    @property
    def place(self) -> Place | None: ...


class Nameable(Placed, Protocol):
    """A run that can have another name: see ``Run``."""

    @property
    def label(self) -> str: ...
    def named(self, label: str) -> Self: ...


R = TypeVar("R", bound=Nameable)


def keys_of(runs: Sequence[Placed]) -> list[Key]:
    """Return for each run whose it is."""
    found, alone = [], 0
    for run in runs:
        place = run.place
        found.append((ALONE, alone) if place is None else (place.comparison, place.entry))
        alone += place is None
    return found


def without(runs: Sequence[R], key: Key) -> tuple[R, ...]:
    """Return the runs without those of a contender: all its rounds, its warm-up, and its trials of a tuning stage."""
    its = _belongs(runs, key)
    return tuple(run for run, own in zip(runs, keys_of(runs), strict=True) if not its(run, own))


def renamed(runs: Sequence[R], key: Key, name: str) -> tuple[R, ...]:
    """Return the runs, those of a contender under another name.

    Raises
    ------
    ValueError
        For a name that is empty, too long, or another contender's.
    """
    name = " ".join(name.split())
    if not name:
        raise ValueError("name '': must have at least one character; type one beside the button")
    if len(name) > LONGEST:
        raise ValueError(
            f"name {name!r}: has {len(name)} characters, at most {LONGEST} fit into tables; take a shorter one"
        )
    keys, its = keys_of(runs), _belongs(runs, key)
    if any(run.label == name and not its(run, own) for run, own in zip(runs, keys, strict=True)):
        raise ValueError(f"name {name!r}: another run has it; take one that tells them apart")
    return tuple(run.named(name) if its(run, own) else run for run, own in zip(runs, keys, strict=True))


def _belongs(runs: Sequence[Nameable], key: Key) -> Callable[[Nameable, Key], bool]:
    """Return what says whether a run is a contender's.

    Tuning comes before baselines are added, which moves places on: its runs are known by comparison and name.
    """
    labels = {run.label for run, own in zip(runs, keys_of(runs), strict=True) if own == key and not _tunes(run)}

    def its(run: Nameable, own: Key) -> bool:
        return (own[0] == key[0] and run.label in labels) if _tunes(run) else own == key

    return its


def _tunes(run: Placed) -> bool:
    return run.place is not None and run.place.stage == "tuning"
