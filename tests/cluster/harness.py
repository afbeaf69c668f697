"""What tests of clusters share: a run that is stopped, and what a run must leave behind: nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from distributed import Client

import leaks
import scaleml
from cluster.conftest import Problem, poll
from leaks import of_this_process


@contextlib.contextmanager
def nothing_left(client: Client) -> Iterator[None]:
    """Fail if the block leaves a thread or a segment here or on a worker, or a task on the scheduler."""

    def look() -> dict[str, leaks.Residue]:
        return {"here": leaks.look(sockets=False), **client.run(leaks.look, False)}

    before = look()
    yield

    def left() -> list[str]:
        gone = {place: now.minus(before[place]) for place, now in look().items()}
        ours = {p: replace(r, segments=frozenset(filter(of_this_process, r.segments))) for p, r in gone.items()}
        return [f"{place}: {residue}" for place, residue in ours.items() if residue]

    assert poll(lambda: not left(), 5), left()
    assert poll(lambda: not scaleml_tasks(client), 5), scaleml_tasks(client)


@contextlib.contextmanager
def running(**arguments: Any) -> Iterator[scaleml.Run]:
    """A run that runs, and is stopped at the end of the block whatever happens in it."""
    run = scaleml.start(**arguments)
    try:
        assert poll(lambda: run.state != "starting")
        assert run.state == "running", run.error
        yield run
    finally:
        if not run.over:
            run.stop()


def scaleml_tasks(client: Client) -> list[str]:
    def names(dask_scheduler: Any) -> list[str]:
        return [str(key) for key in dask_scheduler.tasks if str(key).startswith("scaleml")]

    return client.run_on_scheduler(names)


def compare(problem: Problem, strategies: Any, **changed: Any) -> Any:
    """Compare in one round, with the problem's settings, a quarter of its rows held out."""
    settings = {**problem.settings(), "validation": 0.25, "repeats": 1, **changed}
    del settings["strategy"]
    return scaleml.compare(strategies=strategies, **settings)


def sockets_of_links() -> list[str]:
    """The types of the sockets that ranks in this process hold to each other, with their family or version of TLS."""
    import gc

    links = [o for o in gc.get_objects() if type(o).__name__ in ("PlainLink", "TLSLink")]
    socks = [link.sock for link in links if link.sock.fileno() >= 0]  # not those of a run that is over
    return [f"{type(sock).__name__} {getattr(sock, 'version', lambda sock=sock: sock.family.name)()}" for sock in socks]
