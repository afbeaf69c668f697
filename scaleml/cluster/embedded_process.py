"""A Dask process of the embedded cluster: scheduler, or nanny of a worker, with a log of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import sys
from typing import Final, TypedDict

import dask
from distributed.deploy.subprocess import Subprocess

from scaleml.cluster import follow_parent, forked
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.forked import ForkedProcess, ForkServer, private
from scaleml.cluster.nanny_cluster import log_end

START_TIMEOUT: Final = 60.0
"""Seconds for a process to be there."""
_END_TIMEOUT: Final = 3.0
_QUIET: Final = {
    "WORKER__PROFILE__ENABLED": "False",
    "ADMIN__TICK__INTERVAL": "500ms",
    "ADMIN__SYSTEM_MONITOR__INTERVAL": "2s",
    "SCHEDULER__HTTP__ROUTES": "[]",
    "WORKER__HTTP__ROUTES": "[]",
}
"""What Dask would do for a dashboard that is not there, many times a second, on the cores of the ranks."""


class Spec(TypedDict):
    """What ``dask spec`` is to start."""

    cls: str
    opts: dict[str, object]


class EmbeddedProcess(Subprocess):
    """A Dask process of the embedded cluster: in a session of its own, so that Ctrl-C in a terminal is ours to handle.

    It is a fork of the cluster's fork server; where there is none, a Python of its own. Then every user of the machine can read its
    arguments: nothing secret stands there.
    """

    process: asyncio.subprocess.Process | ForkedProcess | None  # type: ignore[assignment]

    def __init__(
        self,
        scheduler: str | None = None,
        name: object = None,
        *,
        folder: str,
        spec: Spec,
        fork_server: ForkServer | None = None,
    ) -> None:
        self.folder = pathlib.Path(folder)
        self.spec: Spec = {"cls": spec["cls"], "opts": {**spec["opts"], "name": name}} if scheduler else spec
        self.scheduler = scheduler
        self.name = name
        self._fork_server = fork_server
        super().__init__()

    async def _start(self) -> None:
        arguments = [*([self.scheduler] if self.scheduler else []), "--spec", json.dumps(self.spec)]
        name = "scheduler" if self.scheduler is None else f"worker-{self.name}"
        environment = _environment(self.folder)
        if self._fork_server is None:
            self.process = await _execute(arguments, environment, self.folder / f"{name}.log")
        else:
            try:
                self.process = await self._fork_server.fork(name, arguments, environment, self.scheduler is not None)
            except ChildProcessError as error:
                raise StartFailed(
                    f"no process of the embedded cluster can start{log_end(self.folder, forked.LOG)}"
                ) from error
        if self.scheduler is None:
            await self._await_address()

    async def close(self) -> None:
        """End the process, gently if it lets itself: killed with its children it would leave semaphores in /dev/shm."""
        process = self.process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _END_TIMEOUT)
            except TimeoutError:
                # Only itself: its worker follows by a pipe, and its resource tracker cleans up after both.
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        self.process = None
        await super().close()

    async def _await_address(self) -> None:
        file = self.folder / "scheduler.json"
        assert self.process is not None
        for _ in range(int(START_TIMEOUT / 0.02)):
            with contextlib.suppress(OSError, ValueError):
                self.address = json.loads(file.read_text())["address"]
                return
            if self.process.returncode is not None:
                break
            await asyncio.sleep(0.02)
        raise StartFailed(f"the embedded Dask scheduler did not start{log_end(self.folder, 'scheduler')}")


def _environment(folder: pathlib.Path) -> dict[str, str]:
    """Return the environment of a process of the cluster whose folder this is."""
    environment = {
        **os.environ,
        follow_parent.PARENT: str(os.getpid()),
        "DASK_TEMPORARY_DIRECTORY": str(folder),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    for setting, value in _QUIET.items():
        environment.setdefault(f"DASK_DISTRIBUTED__{setting}", value)
    # Nannies set these for their workers, which is too late for one whose NumPy is there already.
    for setting, value in dask.config.get("distributed.nanny.pre-spawn-environ").items():
        if value is not None:
            environment.setdefault(setting, str(value))
    return environment


async def _execute(
    arguments: list[str], environment: dict[str, str], log_file: pathlib.Path
) -> asyncio.subprocess.Process:
    with open(log_file, "ab", opener=private) as log:
        return await asyncio.create_subprocess_exec(
            # -P: from where we import, and not from a working directory that others may write into.
            *(sys.executable, "-P", "-m", "dask", "spec", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
        )
