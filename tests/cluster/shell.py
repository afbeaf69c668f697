"""Dask processes as a shell starts them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from cluster.conftest import poll

WHERE = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")


class Shell:
    """Starts Dask processes that log to `folder`, and kills them at the end of its block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait(10)

    def dask(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        """Run ``dask`` with these words, and with variables beside those of this process."""
        with open(self._folder / f"{len(self._started)}.log", "wb") as log:
            # Each in a group of its own: a nanny's worker ends with it.
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def cluster(self, workers: dict[str, list[str]], *scheduler: str) -> tuple[Path, subprocess.Popen[bytes]]:
        """Start a scheduler and named workers with options of their own; return the scheduler's file and its process."""
        file = self._folder / "scheduler.json"
        process = self.dask("scheduler", *WHERE, "--port", "0", "--scheduler-file", str(file), *scheduler)
        for name, options in workers.items():
            self.worker(file, name, *options)
        assert poll(file.exists)
        return file, process

    def worker(self, file: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker of the scheduler with this file."""
        return self.dask("worker", "--scheduler-file", str(file), "--nthreads", "1", "--name", name, *WHERE, *options)
