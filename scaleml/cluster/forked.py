"""Forked processes of the embedded cluster, as their client sees them: ordered of the fork server, signalled and awaited through it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final, TypedDict, final

from scaleml.cluster import follow_parent

_MODULE: Final = "scaleml.cluster.fork_server"
LOG: Final = "fork-server"


@final
class Order(TypedDict):
    """A process to be forked: ``dask spec``."""

    name: str
    """Of its log."""
    arguments: list[str]
    folder: str
    """The cluster's, where its log is to be."""
    has_workers: bool
    environment: dict[str, str]
    path: list[str]
    directory: str


@final
class Signal(TypedDict):
    """A signal for one of them."""

    pid: int
    number: int


class Report(TypedDict):
    """A process was forked, if there is no return code yet, or has ended."""

    pid: int
    returncode: int | None


@final
class ForkedProcess:
    """What ``asyncio.subprocess.Process`` is for a child of one's own."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid: Final = pid
        self.returncode: int | None = None
        self._server = server
        self._ended = asyncio.Event()

    def terminate(self) -> None:
        """Send SIGTERM, unless it has ended."""
        self._server.signal(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self._server.signal(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Return its return code, once it has ended."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def end(self, returncode: int) -> None:
        """Note that it has ended; called by its server."""
        self.returncode = returncode
        self._ended.set()


@final
class ForkServer:
    """The fork server of one cluster, started with the first process that is asked of it; for one event loop.

    Parameters
    ----------
    folder : Path
        The cluster's, for logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._forks: asyncio.Queue[int | None] = asyncio.Queue()
        self._running: dict[int, ForkedProcess] = {}

    async def fork(
        self, name: str, arguments: list[str], environment: dict[str, str], has_workers: bool
    ) -> ForkedProcess:
        """Return a new process that runs ``dask spec`` with these arguments.

        Raises
        ------
        ChildProcessError
            If the server has ended; its log says why.
        """
        order: Order = {
            "name": name,
            "arguments": arguments,
            "folder": str(self._folder),
            "has_workers": has_workers,
            "environment": environment,
            "path": [path or os.getcwd() for path in sys.path],
            "directory": os.getcwd(),
        }
        async with self._lock:
            if self._process is None:
                await self._start(environment)
            self._send(order)
            pid = await self._forks.get()
            if pid is None:
                self._forks.put_nowait(None)
                raise ChildProcessError("the fork server has ended")
            return self._running[pid]

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process that has not ended."""
        message: Signal = {"pid": pid, "number": number}
        self._send(message)

    async def close(self) -> None:
        """End the server; what is left of its forks follows it."""
        if self._writer is not None and self._reading is not None:
            self._writer.close()
            await self._reading

    def _send(self, message: Order | Signal) -> None:
        assert self._writer is not None
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _start(self, environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs, open(self._folder / f"{LOG}.log", "ab", opener=private) as log:
            self._process = await asyncio.create_subprocess_exec(
                # -P: from where we import, and not from a working directory that others may write into.
                *(sys.executable, "-P", "-m", _MODULE),
                stdin=theirs.fileno(),
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**environment, follow_parent.PARENT: str(os.getpid())},
            )
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                report: Report = json.loads(line)
                pid, returncode = report["pid"], report["returncode"]
                if returncode is None:
                    self._running[pid] = ForkedProcess(self, pid)
                    self._forks.put_nowait(pid)
                else:
                    self._running.pop(pid).end(returncode)
        # Who is left follows the server.
        for process in self._running.values():
            process.end(-signal.SIGKILL)
        self._forks.put_nowait(None)
        assert self._writer is not None
        assert self._process is not None
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        await self._process.wait()


def private(path: str, flags: int) -> int:
    """Open for this user alone."""
    return os.open(path, flags, 0o600)
