"""Nanny cluster: worker processes that come back, and what their logs say when they do not."""

from __future__ import annotations

import asyncio
import contextlib
import re
from asyncio.subprocess import Process
from collections.abc import Collection
from pathlib import Path

import psutil
from distributed.deploy.spec import SpecCluster

from scaleml.cluster.errors import StartFailed
from scaleml.cluster.forked import ForkedProcess, ForkServer
from scaleml.cluster.process_state import is_stopped

_END = 2000
"""Characters of a log that an error shows."""


class NannyCluster(SpecCluster):
    """Nannies bring lost workers back, however long that takes, and `reopen` brings back nannies.

    Dask's own looks once, 15 s after a worker was lost: if its name is away then, still or again, it ends the nanny for good.
    """

    def __init__(self, *, fork_server: ForkServer | None, **how: object) -> None:
        self._fork_server = fork_server
        super().__init__(**how)

    async def _close(self) -> None:
        if self.scheduler is not None and _has_ended(self.scheduler.process):
            # Nobody is there to be told: Dask would try for half a minute.
            self.shutdown_scheduler = False
            self.worker_spec.clear()
            workers = [self.workers.pop(name) for name in list(self.workers)]
            await asyncio.gather(*(process.close() for process in (*workers, self.scheduler)))
        await super()._close()
        if self._fork_server is not None:
            await self._fork_server.close()

    def _update_worker_status(self, op: str, msg: object) -> None:
        super(SpecCluster, self)._update_worker_status(op, msg)

    async def replace_stopped(self, names: Collection[str]) -> None:
        """As `reopen`, after ending nannies that are stopped, and so bring nobody back, but for those of these workers."""
        for name, worker in list(self.workers.items()):
            process = worker.process
            with contextlib.suppress(psutil.Error, ProcessLookupError):  # it is ending
                if str(name) not in names and process is not None and is_stopped(process.pid):
                    process.kill()
                    await process.wait()
        await self.reopen()

    async def reopen(self) -> None:
        """Start again those whose processes have ended."""
        for name, worker in list(self.workers.items()):
            if worker.process is None or _has_ended(worker.process):
                del self.workers[name]
        await self._correct_state()

    def check_processes(self, folder: str | Path) -> None:
        """Raise StartFailed, with the end of its log, if a nanny's process has ended: no other comes in its place."""
        for name, worker in list(self.workers.items()):
            if _has_ended(worker.process):
                raise StartFailed(
                    f"worker {name} of the embedded cluster did not start{log_end(folder, f'worker-{name}')}"
                )


def _has_ended(process: Process | ForkedProcess | None) -> bool:
    return process is not None and process.returncode is not None


def log_end(folder: str | Path, process: str) -> str:
    """Return, as the end of a sentence, what the log of a process says: the first error, and how it ends."""
    log = (Path(folder) / f"{process}.log").read_text(errors="replace")
    # Of errors that led to others the first stands first.
    cause = re.search(r"^[\w.]+(?:Error|Exception)\b.*", log, re.MULTILINE)
    return f"{f': {cause[0]}' if cause else ''}; its log ends with:\n{log[-_END:].strip()}"
