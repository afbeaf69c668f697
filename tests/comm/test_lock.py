"""Locks of one host's ranks: one at a time, given back by the dead, and no wait without an end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from scaleml import owned_files
from scaleml.comm import Aborted, PeerTimeout, inprocess
from scaleml.comm.transport import file_lock

ROUNDS = 300


def add_slowly(group):
    memory, guard = group.locked_memory(64)
    counter = memory[:8].view(np.int64)
    for _ in range(ROUNDS):
        guard.acquire(lambda: 0)
        seen = int(counter[0])
        time.sleep(0)  # let others come between, if they can
        counter[0] = seen + 1
        guard.release()
    group.barrier()
    return int(counter[0])


@pytest.mark.parametrize("ranks", [2, 4])
def test_one_rank_at_a_time(ranks):
    assert inprocess.run(ranks, add_slowly) == [ranks * ROUNDS] * ranks


def test_waiting_is_told():
    def wait(group):
        _, guard = group.locked_memory(1)
        if group.rank == 0:
            guard.acquire(lambda: 1)
        group.barrier()
        if group.rank == 1:
            group.send(b"trying", 0)
            return guard.acquire(lambda: 0)
        group.recv()
        threading.Event().wait(0.05)
        guard.release()
        return None

    assert inprocess.run(2, wait)[1] > 0


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
    """A lock's file, and a process that holds the lock."""
    path = tmp_path / "lock"
    path.write_bytes(b"x")
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield str(path), process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def pair():
    groups = inprocess.groups(2, timeout=0.05)
    yield groups
    for group in groups:
        group.close()


def test_the_dead_give_it_back(held, pair):
    path, process = held
    guard = pair[0].mesh.segments.lock(path)
    pair[0].mesh.context.on_stall = lambda *_: process.kill() is None  # whoever waits finds out that it will not come
    guard.acquire(lambda: 1)
    assert process.wait() < 0
    guard.release()


def test_who_has_it_is_named(held, pair):
    guard = pair[0].mesh.segments.lock(held[0])
    with pytest.raises(PeerTimeout, match=r"waited .* for rank 1 .*for the lock of what it shares") as caught:
        guard.acquire(lambda: 1)
    assert caught.value.peer == 1


def test_an_abort_ends_the_wait(held, pair):
    guard = pair[0].mesh.segments.lock(held[0])

    def stalled(*_):
        pair[0].abort("enough")
        return True

    pair[0].mesh.context.on_stall = stalled
    with pytest.raises(Aborted, match="enough"):
        guard.acquire(lambda: 1)


@pytest.mark.parametrize("ranks", [{0}, {1}, {0, 1, 2}])
def test_all_do_without_where_one_has_none(monkeypatch, tmp_path, ranks):
    def refuse(descriptor, operation):
        if int(threading.current_thread().name.removeprefix("rank-")) in ranks:
            raise OSError("no locks here")

    monkeypatch.setattr(owned_files, "MEMORY", tmp_path)
    monkeypatch.setattr(file_lock, "_flock", refuse)
    assert inprocess.run(3, lambda group: group.locked_memory(8)) == [None] * 3
    assert list(tmp_path.iterdir()) == []


def test_all_do_without_where_they_share_no_memory():
    assert inprocess.run(2, lambda group: group.locked_memory(8), shared_memory=False) == [None] * 2
