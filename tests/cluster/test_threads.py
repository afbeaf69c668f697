"""Pinning BLAS threads: it takes effect whoever set them before, and what was there comes back whoever leaves last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTING = """
import threading
import numpy
from threadpoolctl import threadpool_info, threadpool_limits
from scaleml.runtime.blas_threads import pinned

def now():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

class Actor:
    # A thread that does what it is told and lives on: as Dask's threads do.
    def __init__(self):
        self.todo, self.done = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while True:
            self.todo.acquire()
            self.call()
            self.done.release()

    def __call__(self, call):
        self.call = call
        self.todo.release()
        assert self.done.acquire(timeout=10)
"""
CASES = {
    "one rank": """
        a = Actor(); pin = pinned(3)
        a(pin.__enter__); assert now() == {3}
        a(lambda: pin.__exit__(None, None, None)); assert now() == {1}
    """,
    "two ranks of one process, the first leaves first": """
        a, b = Actor(), Actor(); one, two = pinned(3), pinned(3)
        a(one.__enter__); b(two.__enter__); assert now() == {3}
        a(lambda: one.__exit__(None, None, None)); assert now() == {3}
        b(lambda: two.__exit__(None, None, None)); assert now() == {1}
    """,
    "one run after another, in other threads": """
        for threads in (2, 3):
            a = Actor(); pin = pinned(threads)
            a(pin.__enter__); assert now() == {threads}
            a(lambda: pin.__exit__(None, None, None)); assert now() == {1}
    """,
    "a thread that still lives has set them before": """
        user = Actor(); user(lambda: threadpool_limits(2)); assert now() == {2}
        a = Actor(); pin = pinned(3)
        a(pin.__enter__); assert now() == {3}
        a(lambda: pin.__exit__(None, None, None)); assert now() == {2}
        user(lambda: threadpool_limits(4)); assert now() == {4}
    """,
    "an error inside": """
        def fail():
            try:
                with pinned(3):
                    assert now() == {3}
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
        Actor()(fail); assert now() == {1}
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_pins_and_gives_back(case: str) -> None:
    lines = "\n".join(line.removeprefix("        ") for line in CASES[case].splitlines())
    code = SETTING + lines
    # In a process of its own, begun with one thread: the pools belong to all of a process.
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
