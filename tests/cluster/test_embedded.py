"""The cluster that scaleml starts itself: from any script, once, and never longer than the process it belongs to."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import textwrap
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import psutil
import pytest
from distributed import Client

import scaleml
from cluster.conftest import Problem, poll
from cluster.scripts import alive, script, temporary
from embedded import dask_processes, listening
from leaks import segments
from scaleml import RunFailed
from scaleml.cluster.embedded import close_embedded, embedded_size, find_client
from scaleml.owned_files import sweep

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests' folder

DATA = """
import os
import numpy as np
import psutil
import scaleml

X = np.random.default_rng(0).standard_normal((300, 4))
y = (X[:, 0] > 0).astype(int)

def children():
    return [child.pid for child in psutil.Process().children(recursive=True)]
"""


def segments_of(pids: list[int]) -> set[str]:
    """The segments of these processes: other tests, which run at the same time, have their own."""
    return {segment for segment in segments() if set(segment.split("-")) & {str(pid) for pid in pids}}


def semaphores_of(pids: list[int]) -> list[str]:
    """The named semaphores of these processes."""
    found = [path.name for path in Path("/dev/shm").glob("sem.scaleml-*")]
    return [name for name in found if set(name.split("-")) & {str(pid) for pid in pids}]


def test_a_plain_script_without_a_guard_works_and_leaves_nothing(tmp_path: Path) -> None:
    code = """
    run = scaleml.train(scaleml.LinearModel(), X, y, epochs=3, workers=2)
    print(run.state, run.workers, run.model.score(X, y) > 0.8)
    print(*children())
    """
    with script(DATA + textwrap.dedent(code), tmp_path, planted=("dask", "json", "numpy", "scaleml")) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    said, pids = out.splitlines()
    assert said == "finished 2 True"
    children = [int(pid) for pid in pids.split()]
    assert len(children) >= 5  # a scheduler, two nannies, two workers
    assert poll(lambda: not alive(children), 10), alive(children)
    assert segments_of([process.pid, *children]) == set()
    assert temporary(tmp_path) == []


@pytest.mark.parametrize("killed", ["the client", "everything"])
def test_processes_follow_a_killed_parent_and_take_its_files_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    code = """
    run = scaleml.start(scaleml.LinearModel(), X, y, epochs=10**9, workers=2, strategy=scaleml.ParameterServer())
    while run.state == "starting":
        pass
    print(run.state, *children(), flush=True)
    run.wait()
    """
    with script(DATA + textwrap.dedent(code), tmp_path) as process:
        assert process.stdout is not None
        state, *pids = process.stdout.readline().split()
        assert state == "running", process.communicate()
        children = [int(pid) for pid in pids]
        assert segments_of([process.pid, *children])  # the data, at least
        assert len(children) >= 5
        for pid in [process.pid] if killed == "the client" else [process.pid, *children]:
            os.kill(pid, signal.SIGKILL)
        process.wait(10)
        assert poll(lambda: not alive(children), 20), alive(children)
    own = [process.pid, *children]
    if (
        killed == "everything"
    ):  # then the next run that starts or ends cleans up, in whatever process, also after the nannies' semaphores
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        assert temporary(tmp_path), "nobody else sweeps this folder"
        sweep()
        assert semaphores_of(own) == []
    assert poll(lambda: not segments_of(own), 5), segments_of(own)
    assert poll(lambda: not temporary(tmp_path), 5), temporary(tmp_path)


CHILDREN = """
import multiprocessing
import os

def attempt(*_):
    try:
        scaleml.train(scaleml.LinearModel(), X, y, epochs=1, workers=1)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "trained"

def report(connection):
    connection.send(attempt())

if __name__ == "__main__":
    print("parent", attempt())
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        child = context.Process(target=report, args=(theirs,))
        child.start()
        print(method, ours.recv() if ours.poll(30) else "nothing")
        child.join(30)
    from joblib import Parallel, delayed
    print("joblib", Parallel(n_jobs=2)(delayed(attempt)(i) for i in range(2))[0])
    print("parent", attempt())
"""


def test_no_cluster_is_started_inside_a_child_process(tmp_path: Path) -> None:
    with script(DATA + CHILDREN, tmp_path) as process:
        out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    answers = dict(line.split(" ", 1) for line in out.splitlines())
    assert answers.keys() == {"parent", "fork", "spawn", "joblib"}
    assert answers.pop("parent") == "trained"  # also after its children came and went
    for answer in answers.values():
        assert answer.startswith("StartFailed: no Dask cluster is started inside a child process (joblib, multip")
        assert "pass its client" in answer


# Within one process.


def worker_pids(client: Client) -> dict[Any, int]:
    return {facts["name"]: facts["pid"] for facts in pids(client).values()}


def addresses(client: Client) -> dict[str, str]:
    """The workers that the scheduler knows of; it asks none, for to one that has just been killed it would try to connect for 30 s."""

    def known(dask_scheduler: Any) -> dict[str, str]:
        return {str(worker.name): worker.address for worker in dask_scheduler.workers.values()}

    return client.run_on_scheduler(known)


def pids(client: Client) -> dict[str, Any]:
    def here(dask_worker: Any) -> dict[str, Any]:
        return {"name": str(dask_worker.name), "pid": os.getpid()}

    return client.run(here)


@pytest.mark.usefixtures("embedded")
def test_it_is_made_once_grows_when_asked_and_comes_back_after_its_end(problem: Problem) -> None:
    problem.check(scaleml.train(**problem.settings(workers=2)).params, shards=2)
    client, own = find_client(None)
    assert own
    first = worker_pids(client)
    assert len(first) == max(2, embedded_size())
    problem.check(scaleml.train(**problem.settings(workers=1)).params, shards=1)
    assert find_client(None)[0] is client
    assert worker_pids(client) == first

    problem.check(scaleml.train(**problem.settings(workers=3)).params, shards=3)
    assert find_client(None)[0] is client
    assert worker_pids(client).items() >= first.items()
    # More by number only: by default a rank a core.
    assert scaleml.train(**problem.settings()).workers == embedded_size()

    assert poll(lambda: not client.processing() or not any(client.processing().values()))
    processes = [process.pid for process in dask_processes()]
    assert set(processes) >= set(worker_pids(client).values())
    for _ in range(2):  # closing nothing is no mistake
        scaleml.close()
    assert poll(lambda: not alive(processes), 10), alive(processes)
    problem.check(scaleml.train(**problem.settings(workers=2)).params, shards=2)
    again, own = find_client(None)
    assert own
    assert again is not client

    again.close()  # by hand: then it is of no use any more
    problem.check(scaleml.train(**problem.settings(workers=2)).params, shards=2)
    assert find_client(None)[0] is not again


@pytest.mark.usefixtures("embedded")
def test_its_client_is_not_the_current_one_but_may_be_passed(problem: Problem) -> None:
    client, _ = find_client(None, 2)
    with pytest.raises(ValueError, match="No"):
        Client.current()
    assert find_client(client) == (client, True)
    problem.check(scaleml.train(**problem.settings(client=client, workers=2)).params, shards=2)


@pytest.mark.usefixtures("embedded")
def test_threads_that_ask_at_once_get_the_same_one() -> None:
    close_embedded()
    found: list[Client] = []
    asking = [threading.Thread(target=lambda: found.append(find_client(None, 2)[0])) for _ in range(3)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(60)
    assert len(found) == 3
    assert len(set(map(id, found))) == 1


@pytest.mark.usefixtures("embedded")
def test_it_listens_to_this_machine_only() -> None:
    client, _ = find_client(None, 2)
    places = [host for host, _ in listening(dask_processes())]
    workers = len(worker_pids(client))
    assert places == ["127.0.0.1"] * (1 + 2 * workers), "the scheduler, nannies and workers, and no web server"


@pytest.mark.usefixtures("embedded")
def test_a_killed_worker_ends_the_run_and_the_next_one_has_its_replacement(problem: Problem) -> None:
    find_client(None, 2)
    before = segments()
    with pytest.raises(RunFailed, match=r"rank 1 lost at step \d+: the Dask worker tls://.* is gone"):
        scaleml.train(**problem.settings(workers=2, faults=[scaleml.faults.Kill(1, 4)], on_worker_lost="raise"))
    assert poll(lambda: segments() <= before, 5)
    problem.check(scaleml.train(**problem.settings(workers=2)).params, shards=2)


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("number", [1, 2], ids=["to find out who shares a host", "for its parameters"])
def test_a_worker_killed_with_a_segment_that_still_has_its_name_leaves_none(problem: Problem, number: int) -> None:
    client, _ = find_client(None, 2)
    client.wait_for_workers(2, timeout=60)
    address, dead = next((address, facts["pid"]) for address, facts in pids(client).items() if facts["name"] == "1")
    client.run(die_with_segment, number, workers=[address])
    with pytest.raises(RunFailed, match=r"rank \d|worker"):
        scaleml.train(**problem.settings(workers=2))
    assert poll(lambda: not alive([dead]), 10), "the fault did not happen"
    assert poll(lambda: not segments_of([dead]), 5), segments_of([dead])


def die_with_segment(number: int) -> None:
    """Have this process killed as soon as it has made so many segments more, before any other process has opened the last one."""
    from scaleml import owned_files

    create, made = owned_files.create, []

    def deadly(kind: str, folder: Path) -> tuple[str, int]:
        made.append(create(kind, folder))
        if len(made) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return made[-1]

    owned_files.create = deadly


@pytest.mark.usefixtures("embedded")
def test_a_lost_worker_comes_back_however_long_it_takes() -> None:
    # Dask's own cluster ends the nanny of a worker that is away when this time has passed.
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "0s"}):
        client, _ = find_client(None, 2)
        for _ in range(2):
            pid, old = worker_pids(client)["0"], addresses(client)["0"]
            os.kill(pid, signal.SIGKILL)
            assert poll(lambda old=old: addresses(client).get("0", old) != old, 60)
            assert worker_pids(client)["0"] != pid


@pytest.mark.usefixtures("embedded")
def test_a_lost_nanny_comes_back_with_the_next_run(problem: Problem) -> None:
    client, _ = find_client(None, 2)
    before = worker_pids(client)
    above = psutil.Process(before["1"]).parents()
    nanny = above[1] if sys.platform == "linux" else above[0]  # there a process that forks stands between them
    assert nanny.pid in {process.pid for process in dask_processes()}
    nanny.kill()
    assert poll(lambda: not alive([nanny.pid, before["1"]]), 30)
    assert poll(lambda: "1" not in addresses(client), 30), "the scheduler has not noticed"
    problem.check(scaleml.train(**problem.settings(workers=2)).params, shards=2)
    assert find_client(None, len(before))[0] is client
    assert worker_pids(client).keys() == before.keys()


@pytest.mark.usefixtures("embedded")
def test_an_interrupt_of_the_terminal_does_not_reach_its_processes() -> None:
    find_client(None, 2)
    groups = {os.getpgid(process.pid) for process in dask_processes()}
    assert os.getpgid(0) not in groups
    assert len(groups) >= 3  # one each for the scheduler and the nannies; a worker is in its nanny's
