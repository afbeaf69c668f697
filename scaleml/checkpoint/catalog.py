"""The checkpoints of a folder: which is the newest good one, and which may go."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, final

from scaleml.checkpoint.errors import CheckpointError
from scaleml.checkpoint.folder import Folder, open_folder, words_of
from scaleml.checkpoint.manifest import Manifest

__all__ = ["Found", "checkpoints_in", "newest", "old_ones", "step_folder", "step_of"]

_STEP: Final = re.compile(r"step-(\d{8,})-[0-9a-f]+")


def step_folder(step: int, token: str) -> str:
    """Return the name of the folder of a checkpoint; the token tells those apart who come to the same step twice."""
    return f"step-{step:08d}-{token}"


def step_of(name: str) -> int:
    """Return the step in the name of a checkpoint's folder."""
    return int(name.split("-")[1])


def checkpoints_in(folder: Folder) -> list[str]:
    """Return the names of all checkpoints, whole or not, by their steps."""
    names = (name for name in folder.names() if _STEP.fullmatch(name))
    return sorted(names, key=step_of)


@final
@dataclass(frozen=True)
class Found:
    """A checkpoint that is whole.

    Parameters
    ----------
    folder : Folder
        Where it lies.
    manifest : Manifest
        Its own.
    refused : tuple of str
        What is wrong with newer ones, file by file.
    """

    folder: Folder
    manifest: Manifest
    refused: tuple[str, ...] = ()


def newest(url: str, run: str | None = None) -> Found:
    """Return the newest good checkpoint, each file of which was read and compared with its sum.

    Parameters
    ----------
    url : str
        A folder of checkpoints; or one checkpoint, of which then nothing else is tried.
    run : str, optional
        Only those of this run.

    Raises
    ------
    CheckpointError
        Where there is none, with what is wrong with each.
    """
    parent, _, last = url.rpartition("/")
    only = last if _STEP.fullmatch(last) else None
    folder = open_folder(parent if only else url)
    try:
        names = [only] if only else checkpoints_in(folder)
    except Exception as error:  # of as many kinds as there are file systems
        raise CheckpointError(f"{url} cannot be read: {words_of(error)}") from error
    torn: dict[str, str] = {}
    known: list[Manifest] = []
    for name in names:
        try:
            known.append(Manifest.read(folder, name))
        except CheckpointError as error:
            torn[name] = str(error)
    refused: list[str] = []
    # By the clock of those who wrote them: who went on from an older one comes to the same steps again.
    for manifest in sorted(known, key=lambda one: (one.written, step_of(one.name)), reverse=True):
        if run not in (None, manifest.run):
            continue
        try:
            manifest.check(folder)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        refused += [text for name, text in torn.items() if step_of(name) > step_of(manifest.name)]
        return Found(folder, manifest, tuple(refused))
    refused += torn.values()
    if not refused:
        raise CheckpointError(
            f"{url} holds no checkpoint: give the folder that checkpoint= was given; one is written after some time of training, "
            "and at the end"
        )
    raise CheckpointError(f"{url} holds no good checkpoint: {'; '.join(refused)}. Give another folder, or train anew")


def old_ones(folder: Folder, run: str, base: str | None, keep: int, others: Collection[str]) -> list[str]:
    """Return the names of checkpoints that may go, now that one of this run is complete.

    Parameters
    ----------
    folder : Folder
    run : str
        The run that writes here.
    base : str or None
        The checkpoint that it went on from.
    keep : int
        How many stay: the newest of the run, then what it went on from.
    others : collection of str
        Those that were there before the run, which nobody else is writing.
    """
    ranked: list[tuple[int, str, str]] = []
    gone = []
    for name in checkpoints_in(folder):
        try:
            manifest = Manifest.read(folder, name)
        except CheckpointError:
            if name in others:
                gone.append(name)
            continue
        if manifest.run == run:
            ranked.append((2, manifest.written, name))
        elif name in others:
            ranked.append((int(name == base), manifest.written, name))
    return gone + [name for _, _, name in sorted(ranked, reverse=True)[keep:]]
