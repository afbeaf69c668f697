"""What a plan says of checkpoints: which a run writes, and which it goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from scaleml.telemetry.columns import Measures

__all__ = ["Origin", "Saving"]


@final
@dataclass(frozen=True)
class Saving:
    """What the ranks of a run are told of its checkpoints.

    Parameters
    ----------
    url : str
        The folder.
    run, version : str
        The run's name in manifests, which later generations of ranks have, too; of scaleml.
    about : mapping
        What the manifest says of the run and does not change while it goes on; plain values.
    epochs, seconds : float
        How far apart they are: one of the two, the other is 0.
    keep : int
        How many stay.
    base : str or None
        The checkpoint in the same folder that the run went on from.
    """

    url: str
    run: str
    version: str
    about: Mapping[str, Any]
    epochs: float = 0.0
    seconds: float = 0.0
    keep: int = 2
    base: str | None = None


@final
@dataclass(frozen=True)
class Origin:
    """The checkpoint that ranks begin from, where none of them has anything newer in its memory.

    Parameters
    ----------
    url, name : str
        The folder, and the checkpoint's in it.
    step : int
        Where it was taken.
    ranks : int
        How many ranks trained then.
    clock : float
        What the training clock showed.
    fingerprints : mapping
        Of the rows of each shard.
    evaluations : tuple
        Those so far.
    commands : int
        How many of this run's commands had been applied: none, of another run's checkpoint.
    """

    url: str
    name: str
    step: int
    ranks: int
    clock: float
    fingerprints: Mapping[str, str]
    evaluations: tuple[Measures, ...] = ()
    commands: int = 0
