"""The writer of one rank's checkpoints: a thread that writes its files; the first rank's writes the manifest, when all are there.

Ranks tell each other in the folder itself: whoever has written its files puts a receipt there, with their sizes and sums.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, final

from scaleml.checkpoint.catalog import checkpoints_in, old_ones
from scaleml.checkpoint.folder import Folder, open_folder, words_of
from scaleml.checkpoint.manifest import MANIFEST, Manifest, StoredFile

__all__ = ["Job", "Writer"]

_LOOK: Final = (0.01, 0.5)
"""Seconds between two looks for the others' receipts, at first and at most."""


@final
@dataclass(frozen=True)
class Job:
    """What one rank writes of one checkpoint.

    Parameters
    ----------
    name : str
        Of its folder.
    files : mapping
        Name -> what makes its content.
    note : mapping
        What the manifest is to say of this rank; plain values.
    about : mapping or None
        Of the first rank: what the manifest says.
    """

    name: str
    files: Mapping[str, Callable[[], bytes]]
    note: Mapping[str, Any]
    about: Mapping[str, Any] | None = None


@final
class Writer:
    """Writes one checkpoint after the other.

    Parameters
    ----------
    url : str
        The folder.
    rank, ranks : int
        Whose writer it is, and how many there are.
    run, version : str
        What the manifest calls the run; of scaleml.
    keep : int
        How many checkpoints stay.
    base : str or None
        The checkpoint that the run went on from.
    told : callable
        Told, in the writer's thread, in words what went wrong.

    Attributes
    ----------
    failed : bool
        Whether the newest one could not be written.
    """

    def __init__(
        self,
        url: str,
        *,
        rank: int,
        ranks: int,
        run: str,
        version: str,
        keep: int,
        base: str | None,
        told: Callable[[str], None],
    ) -> None:
        self.failed = False
        self._url, self._rank, self._ranks = url, rank, ranks
        self._run, self._version, self._keep, self._base = run, version, keep, base
        self._told, self._said = told, ""
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._idle, self._gives_up = threading.Event(), threading.Event()
        self._idle.set()
        self._closing = False
        self._others: list[str] | None = None
        self._half: list[str] = []
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether it still writes, or waits for the others."""
        return not self._idle.is_set()

    def put(self, job: Job) -> None:
        """Have a checkpoint written, when it is not busy."""
        assert not self.is_busy
        self._idle.clear()
        self._gives_up.clear()
        self.failed = False
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._write_all, name=f"scaleml-checkpoint-{self._rank}", daemon=True
            )
            self._thread.start()
        self._jobs.put(job)

    def give_up(self) -> None:
        """Wait no longer for the others: one of them has failed."""
        self._gives_up.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Return when it is not busy any more, or after so many seconds; whether it is not."""
        return self._idle.wait(seconds)

    def lose(self) -> None:
        """Count the checkpoint that is being written as failed: the storage does not answer."""
        self.failed = True
        self._told(f"checkpoint not written by rank {self._rank}: the storage does not answer")

    def close(self, patience: float = 0.0) -> None:
        """End the thread: at once, but for a file that is being written, for which it is given so many seconds."""
        self._closing = True
        self._gives_up.set()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(patience)
            self._thread = None

    def _write_all(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                self._remove_half()
                return
            try:
                self._write(job)
                self._said = ""
            except Exception as error:  # noqa: BLE001  of as many kinds as there are file systems; training goes on
                self._fail(job, error)
            finally:
                del job  # with the state that it writes
                self._idle.set()

    def _fail(self, job: Job, error: Exception) -> None:
        self.failed = True
        if job.about is not None:  # on a full disk it is in the way
            self._half.append(job.name)  # and goes when the others are done with it, too
        words = words_of(error)
        if words != self._said and not self._closing:
            self._said = words
            self._told(f"checkpoint {job.name} not written by rank {self._rank}: {words}")

    def _remove_half(self) -> None:
        """Remove what was written of checkpoints that came to nothing, also by ranks that did not know it yet."""
        with contextlib.suppress(Exception):
            for name in self._half:
                open_folder(self._url).remove(name)
            self._half.clear()

    def _write(self, job: Job) -> None:
        self._remove_half()
        folder = open_folder(self._url)
        stored = {}
        if self._others is None and job.about is not None:
            self._others = checkpoints_in(folder)
        for name, make in job.files.items():
            data = make()
            folder.write(f"{job.name}/{name}", data)
            stored[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            del data
        receipt = json.dumps({"files": stored, "note": dict(job.note)}).encode()
        if job.about is None:
            folder.write(f"{job.name}/{_receipt(self._rank)}", receipt)
        else:
            self._complete(folder, job, receipt)

    def _complete(self, folder: Folder, job: Job, own: bytes) -> None:
        """Write the manifest, once all ranks have written theirs; then remove what is old."""
        assert job.about is not None
        receipts = {self._rank: json.loads(own)}
        pause, most = _LOOK
        while len(receipts) < self._ranks:
            there = set(folder.names(job.name))
            for rank in range(self._ranks):
                if rank not in receipts and _receipt(rank) in there:
                    receipts[rank] = json.loads(folder.read(f"{job.name}/{_receipt(rank)}"))
            if len(receipts) < self._ranks and self._gives_up.wait(pause):
                raise OSError("other ranks have not written theirs")
            pause = min(2 * pause, most)
        files = {name: StoredFile(**file) for each in receipts.values() for name, file in each["files"].items()}
        notes = [receipts[rank]["note"] for rank in range(self._ranks)]
        now = datetime.now(UTC).isoformat()
        manifest = Manifest(job.name, self._run, now, self._version, files, {**job.about, "ranks": notes})
        folder.write(f"{job.name}/{MANIFEST}", manifest.to_bytes())
        for rank in range(self._ranks):
            folder.remove(f"{job.name}/{_receipt(rank)}")
        for name in old_ones(folder, self._run, self._base, self._keep, self._others or ()):
            folder.remove(name)


def _receipt(rank: int) -> str:
    return f"receipt-{rank}.json"
