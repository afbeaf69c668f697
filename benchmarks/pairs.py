"""Two processes of one peer, driven round by round from a third.

The driver speaks to both over a socket of its own, because an MPI rank that waits in a collective spins, and would take
a core from whoever is measured meanwhile: between rounds every pair waits in `recv` and costs nothing.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .report import ONE_THREAD

SECONDS = 120.0


class Pipe:
    """One JSON object a line, both ways, over a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.file = connection.makefile("rb")

    def send(self, message: Any) -> None:
        """Send one object."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Any:
        """Return the next object; EOFError if the other side is gone."""
        line = self.file.readline()
        if not line:
            raise EOFError("the other process ended")
        return json.loads(line)

    def close(self) -> None:
        """Close the connection: the other side sees its end."""
        self.file.close()
        self.socket.close()


class Pair:
    """The driver's hold on two processes."""

    def __init__(self, pipes: Sequence[Pipe]) -> None:
        self.pipes = pipes

    def ask(self, message: Any) -> list[Any]:
        """Send `message` to both, and return both answers by rank."""
        return self.ask_each([message] * len(self.pipes))

    def ask_each(self, messages: Sequence[Any]) -> list[Any]:
        """Send each its own message, and return both answers by rank."""
        for pipe, message in zip(self.pipes, messages, strict=True):
            pipe.send(message)
        answers = [pipe.receive() for pipe in self.pipes]
        for answer in answers:
            if isinstance(answer, dict) and "error" in answer:
                raise RuntimeError(answer["error"])
        return answers


def dial() -> Pipe:
    """Connect a measured process to its driver: the last argument is the driver's address."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[-1])
    return Pipe(connection)


def answer_requests(pipe: Pipe, answer: Any) -> None:
    """Answer the driver's messages until it hangs up."""
    with contextlib.suppress(EOFError, ConnectionResetError):
        while True:
            message = pipe.receive()
            try:
                pipe.send(answer(message))
            except Exception as error:  # noqa: BLE001 - the driver must know, whatever it was
                pipe.send({"error": f"{type(error).__name__}: {error}"})


@contextlib.contextmanager
def pair(module: str, kind: str, command: Sequence[str] = (), ranks: int = 2) -> Iterator[Pair]:
    """Start ``python -m module kind rank`` `ranks` times, or once under `command` (mpiexec) that starts them itself.

    Each process calls `dial` and says its rank; it ends when the block does.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX) as server,
        contextlib.ExitStack() as stack,
    ):
        address = str(Path(folder) / "driver")
        server.bind(address)
        server.listen()
        server.settimeout(1.0)
        python = [sys.executable, "-m", module, kind]
        starts = [[*command, *python, address]] if command else [[*python, str(rank), address] for rank in range(ranks)]
        processes = [stack.enter_context(_process(start)) for start in starts]
        pipes: dict[int, Pipe] = {}
        for _ in range(ranks):
            connection = _accept(server, processes)
            connection.settimeout(SECONDS)
            pipe = Pipe(connection)
            stack.callback(pipe.close)
            pipes[pipe.receive()["rank"]] = pipe
        yield Pair([pipes[rank] for rank in range(ranks)])


def _accept(server: socket.socket, processes: Sequence[subprocess.Popen[bytes]]) -> socket.socket:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            return server.accept()[0]
        if any(process.poll() is not None for process in processes):
            raise RuntimeError(f"{processes[0].args!r} ended with {[process.returncode for process in processes]}")
    raise RuntimeError(f"{processes[0].args!r} was not ready after {SECONDS:.0f} s")


@contextlib.contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": path}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        for sign in (None, signal.SIGTERM, signal.SIGKILL):
            if sign is not None:
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
                break


def seconds(call: Any, iterations: int) -> list[float]:
    """Return the time of each of `iterations` calls."""
    times = [0.0] * iterations
    clock = time.perf_counter
    for i in range(iterations):
        start = clock()
        call()
        times[i] = clock() - start
    return times
