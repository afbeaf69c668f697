"""Programs on real workers: what they return, print and raise, who ends them, and what is left afterwards."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

import leaks as guards
import scaleml
from embedded import embedded
from scaleml.cluster.errors import StartFailed

RANKS = 2


@pytest.fixture(autouse=True)
def _own_cluster() -> None:
    embedded(RANKS)


@pytest.fixture
def clean() -> Iterator[Client]:
    """The embedded cluster's client; fails if a test leaves a task, thread or segment anywhere."""
    client = embedded(RANKS)
    scaleml.spmd(int, workers=RANKS)  # what all programs share is there
    before = client.run(functools.partial(guards.look, False))
    with guards.guard(sockets=False):
        yield client
    left = guards.settle(lambda: _left(client, before), 5)
    assert not left, left


def _left(client: Client, before: dict[str, Any]) -> dict[str, Any]:
    tasks = {address: keys for address, keys in client.processing().items() if keys}
    now = client.run(functools.partial(guards.look, False))
    return tasks | {
        at: residue.minus(before[at]) for at, residue in now.items() if at in before and residue.minus(before[at])
    }


def printed(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    """Return what a call returns, or the error that it raises, and the lines that it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            found = call()
        except scaleml.RunFailed as error:
            found = error
    return found, out.getvalue().splitlines()


def of_rank(rank: int, lines: list[str]) -> list[str]:
    start = f"[rank {rank}] "
    return [line.removeprefix(start) for line in lines if line.startswith(start)]


def test_arguments_results_collectives_and_output_of_every_rank(clean: Client) -> None:
    class Of(int):  # travels by value, as all in a notebook does
        pass

    future = clean.submit(lambda: 40, pure=False)

    def program(x: Any, add: int, *, times: int) -> Any:
        import logging
        import sys

        rank, ranks = scaleml.rank(), scaleml.communicator()
        print("rank", rank, "of", scaleml.size())
        print("one", end=" ")
        print("line\n\x1b[31mred\x1b[0m \ud800", file=sys.stdout)
        logging.basicConfig(level="INFO", format="%(levelname)s %(message)s")
        logging.getLogger("mine").info("logged")
        thread = threading.Thread(target=lambda: print("thread", scaleml.rank()))
        thread.start()
        thread.join()
        print("10%\r50%\r100%", file=sys.stderr, end="")
        x *= rank + 1
        ranks.allreduce(x)
        return Of(rank), x, add * times, ranks.allgather(rank), os.getpid()

    given = np.ones(3)
    for _ in range(2):  # a cell can be run again
        call = functools.partial(scaleml.spmd, program, given, future, workers=RANKS, times=2)
        results, lines = printed(call)
        assert [result[0] for result in results] == [0, 1]
        assert type(results[1][0]) is Of
        assert all(result[1].tolist() == [3.0] * 3 and result[2:4] == (80, [0, 1]) for result in results)
        assert len({result[4] for result in results} | {os.getpid()}) == 3
        expected = ["one line", "red \\ud800", "INFO logged"]
        for rank in range(RANKS):
            assert of_rank(rank, lines) == [f"rank {rank} of 2", *expected, f"thread {rank}", "100%"]
    assert given.tolist() == [1.0] * 3
    future.release()


def test_large_arguments_are_brought_once_and_chosen_workers_are_the_ranks(clean: Client) -> None:
    from distributed import get_worker

    addresses = sorted(clean.scheduler_info()["workers"])[::-1]
    x = np.random.default_rng(0).random(400_000)
    results = scaleml.spmd(lambda y: (get_worker().address, y.sum()), x, workers=addresses, client=clean)
    assert results == [(address, x.sum()) for address in addresses]
    assert scaleml.spmd(scaleml.size, workers=1) == [1]


def test_the_first_error_comes_with_its_rank_and_traceback_and_ends_the_others(clean: Client) -> None:
    class Own(Exception):
        pass

    def program(how: str) -> None:
        print("before")
        if scaleml.rank() == 1:
            raise Own(f"bad \x1b[2J {how}")
        if how == "waiting":
            with contextlib.suppress(Exception):  # of the lost peer: nobody is to take that for the cause
                scaleml.communicator().barrier()
            raise ValueError("an echo")
        while True:
            pass

    for how in ("waiting", "busy"):
        error, lines = printed(functools.partial(scaleml.spmd, program, how, workers=RANKS))
        assert isinstance(error, scaleml.RunFailed)
        assert "rank 1 on worker tls://" in str(error)
        assert f"Own: bad \\x1b[2J {how}" in str(error)
        assert "in program" in str(error).split("On rank 1:")[1]
        assert isinstance(error.__cause__, Own)
        assert of_rank(1, lines) == ["before"]


def returned_early() -> None:
    if scaleml.rank() == 0:
        scaleml.communicator().allreduce(1.0)


def exits() -> None:
    raise SystemExit(3 * scaleml.rank())


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (returned_early, "rank 1 on worker .* failed: its function had returned while another rank"),
        (exits, "rank 1 .* failed: SystemExit: 3"),
        (lambda: threading.Lock() if scaleml.rank() else None, "rank 1 .* what the function returned, a lock, cannot be pickled"),
        (lambda: np.zeros(2000 * scaleml.rank()), "rank 1 .* 15.* more than the 9.77 kiB that go back"),
    ],
)  # fmt: skip
def test_what_goes_wrong_at_the_end_names_the_rank(program: Callable[[], Any], words: str, clean: Client) -> None:
    with dask.config.set({"scaleml.result-limit": 10_000}), pytest.raises(scaleml.RunFailed, match=words):
        scaleml.spmd(program, workers=RANKS)


def test_what_cannot_be_unpickled_here_names_the_rank() -> None:
    class Bound:
        def __init__(self) -> None:
            self.process = os.getpid()

        def __setstate__(self, state: dict[str, int]) -> None:
            if os.getpid() != state["process"]:
                raise ValueError("not in this process")

    with pytest.raises(
        scaleml.RunFailed, match=r"rank 0 on worker .* cannot be unpickled here \(ValueError: not in this"
    ):
        scaleml.spmd(Bound, workers=RANKS)


def test_a_killed_rank_ends_all_with_its_name() -> None:
    def program() -> None:
        print("here")
        scaleml.communicator().barrier()
        if scaleml.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        scaleml.communicator().barrier()

    error, lines = printed(functools.partial(scaleml.spmd, program, workers=RANKS))
    assert "rank 1 lost: the Dask worker tls://" in str(error)
    assert of_rank(0, lines) == ["here"]
    assert scaleml.spmd(scaleml.rank, workers=RANKS) == [0, 1]


@pytest.mark.parametrize("how", ["computing", "waiting"])
def test_ctrl_c_ends_the_ranks_and_leaves_the_cluster(how: str, clean: Client) -> None:
    def program() -> None:
        print("begun")
        if how == "waiting" and scaleml.rank() == 0:
            scaleml.communicator().barrier()
        while True:
            pass

    class Interrupting(io.StringIO):
        """Ctrl-C, as soon as both ranks have said something."""

        def flush(self) -> None:
            if self.getvalue().count("begun") == RANKS:
                self.write("interrupted\n")
                signal.raise_signal(signal.SIGINT)

    out = Interrupting()
    with contextlib.redirect_stdout(out), pytest.raises(KeyboardInterrupt):
        scaleml.spmd(program, workers=RANKS)
    assert "interrupted" in out.getvalue()
    assert scaleml.spmd(scaleml.rank, workers=RANKS) == [0, 1]


def test_mistakes_are_told_at_once() -> None:
    with pytest.raises(TypeError, match="function=3: must be callable"):
        scaleml.spmd(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backend='mpi': must be one of 'gloo'"):
        scaleml.spmd(int, backend="mpi")
    with pytest.raises(ValueError, match="workers=0"):
        scaleml.spmd(int, workers=0)
    with pytest.raises(RuntimeError, match=r"scaleml.rank\(\) is known in a function"):
        scaleml.rank()
    with pytest.raises(scaleml.RunFailed, match="spmd inside a program of spmd"):
        scaleml.spmd(lambda: scaleml.spmd(int), workers=RANKS)


def test_a_package_that_workers_lack_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleml.api.spmd.packages_of", lambda backend: ["no_such_package"])
    with pytest.raises(StartFailed, match="cannot import no_such_package"):
        scaleml.spmd(int, workers=RANKS, backend="gloo")


def test_ranks_that_are_threads_of_this_process() -> None:
    local = {"processes": False, "dashboard_address": "127.0.0.1:0", "threads_per_worker": 1}
    with LocalCluster(n_workers=RANKS, **local) as cluster, Client(cluster) as client:

        def program() -> tuple[int, int]:
            print("thread of rank", scaleml.rank())
            return scaleml.rank(), scaleml.communicator().allreduce(1)

        results, lines = printed(functools.partial(scaleml.spmd, program, client=client))
        assert results == [(0, 2), (1, 2)]
        assert sorted(lines) == [f"[rank {rank}] thread of rank {rank}" for rank in range(RANKS)]
        with pytest.raises(ValueError, match="threads of one process"):
            scaleml.spmd(program, client=client, backend="gloo")
