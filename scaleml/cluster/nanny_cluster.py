"""Nanny cluster: worker processes that come back, and what their logs say when they do not."""

from __future__ import annotations

import re
from pathlib import Path

from distributed.deploy.spec import SpecCluster

from scaleml.cluster.errors import StartFailed

_END = 2000
"""Characters of a log that an error shows."""


class NannyCluster(SpecCluster):
    """Nannies bring lost workers back, however long that takes, and `reopen` brings back nannies.

    Dask's own looks once, 15 s after a worker was lost: if its name is away then, still or again, it ends the nanny for good.
    """

    def _update_worker_status(self, op: str, msg: object) -> None:
        super(SpecCluster, self)._update_worker_status(op, msg)

    async def reopen(self) -> None:
        """Start again those whose processes have ended."""
        for name, worker in list(self.workers.items()):
            if worker.process is None or worker.process.returncode is not None:
                del self.workers[name]
        await self._correct_state()

    def check_processes(self, folder: str | Path) -> None:
        """Raise StartFailed, with the end of its log, if a nanny's process has ended: no other comes in its place."""
        for name, worker in list(self.workers.items()):
            if worker.process is not None and worker.process.returncode is not None:
                raise StartFailed(f"worker {name} of the embedded cluster did not start{log_end(folder, name)}")


def log_end(folder: str | Path, worker: object = None) -> str:
    """Return, as the end of a sentence, what the log of a worker or of the scheduler says: the first error, and how it ends."""
    log = (Path(folder) / f"{'scheduler' if worker is None else f'worker-{worker}'}.log").read_text(errors="replace")
    # Of errors that led to others the first stands first.
    cause = re.search(r"^[\w.]+(?:Error|Exception)\b.*", log, re.MULTILINE)
    return f"{f': {cause[0]}' if cause else ''}; its log ends with:\n{log[-_END:].strip()}"
