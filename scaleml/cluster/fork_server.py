"""Fork server: the process that imports Dask once for the whole embedded cluster, and of which all its others are forks. Linux.

Run by :mod:`scaleml.cluster.forked` as ``python -P -m scaleml.cluster.fork_server``, with a socket for its input: lines of
JSON go in (`forked.Order`, `forked.Signal`), others come out (`forked.Report`). It has one thread and no connection but that, so
that a fork of it is a process like any other; it has imported what its children would, and ends with its parent.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from scaleml.cluster import follow_parent, handshake_limit, no_http, rank_task
from scaleml.cluster.forked import Order, Report, Signal
from scaleml.cluster.warm_workers import fork_workers_from_here

PRELOADED: Final = (follow_parent, handshake_limit, no_http, rank_task)
"""What Dask preloads into its processes, and what a rank needs."""


class _Ended(NamedTuple):
    pid: int
    status: int


def _serve(client: socket.socket, parent: int) -> Order | None:
    """Fork on demand; returns the order in the child that it is for, and None when the parent has gone."""
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the descriptor below is told
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    running: set[int] = set()
    received = b""
    with selectors.DefaultSelector() as selector:
        for end in (client, woken):
            selector.register(end, selectors.EVENT_READ)
        while os.getppid() == parent:  # a fork of the parent's may have the socket's other end still
            ready = [key.fileobj for key, _ in selector.select(follow_parent.PERIOD)]
            if woken in ready:
                woken.recv(4096)
            for pid, status in _ended():
                running.discard(pid)
                _report(client, pid, os.waitstatus_to_exitcode(status))
            if client not in ready:
                continue
            more = client.recv(1 << 20)
            if not more:
                break
            *lines, received = (received + more).split(b"\n")
            for line in lines:
                order = _obey(json.loads(line), client, running)
                if order is not None:
                    signal.set_wakeup_fd(-1)
                    for end in (client, woken, wake):
                        end.close()
                    return order
    return None


def _obey(message: Order | Signal, client: socket.socket, running: set[int]) -> Order | None:
    """Do what one message says; returns the order in the child that it is for."""
    if "number" in message:
        if message["pid"] in running:  # its number may be another's by now
            os.kill(message["pid"], message["number"])
        return None
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return message
    running.add(pid)
    _report(client, pid, None)
    return None


def _ended() -> Iterator[_Ended]:
    try:
        while (ended := _Ended(*os.waitpid(-1, os.WNOHANG))).pid:
            yield ended
    except ChildProcessError:
        return


def _report(client: socket.socket, pid: int, returncode: int | None) -> None:
    report: Report = {"pid": pid, "returncode": returncode}
    try:
        client.sendall(json.dumps(report).encode() + b"\n")
    except OSError:  # the parent has gone: the loop will see
        pass


def _become(order: Order) -> None:
    """Be the process that was ordered, as if it had been started: own session, log, environment, seeds; returns at its end."""
    parent = os.getppid()
    os.setsid()
    folder = Path(order["folder"])
    _redirect(os.open(folder / f"{order['name']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 1, 2)
    os.environ.clear()
    os.environ.update(order["environment"], **{follow_parent.PARENT: str(parent)})
    sys.path[:] = dict.fromkeys([*order["path"], *sys.path])
    os.chdir(order["directory"])
    Path("/proc/self/comm").write_text(f"dask {order['name']}"[:15])  # what `top` shows

    import dask
    from distributed.cli import dask_spec

    dask.config.refresh()
    if order["has_workers"]:
        fork_workers_from_here(folder, order["name"])
    sys.argv[:] = ["dask spec", *order["arguments"]]
    dask_spec.main(prog_name="dask spec")


def _redirect(descriptor: int, *standard: int) -> None:
    for number in standard:
        os.dup2(descriptor, number)
    os.close(descriptor)


def _reseed() -> None:
    """Have forks draw different numbers, as processes do that were started apart; `random` sees to that itself."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def main() -> None:
    """Serve until the parent ends; in a child: be what was ordered."""
    parent = int(os.environ[follow_parent.PARENT])
    client = socket.socket(fileno=os.dup(0))
    _redirect(os.open(os.devnull, os.O_RDONLY), 0)
    os.register_at_fork(after_in_child=_reseed)
    gc.collect()
    gc.freeze()  # pages that the collector writes to are pages that every child has of its own
    order = _serve(client, parent)
    if order is not None:
        _become(order)


if __name__ == "__main__":
    main()
