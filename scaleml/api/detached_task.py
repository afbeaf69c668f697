"""The task of a detached run: on a worker it does what `start` does in a notebook, and answers whoever attaches to it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import cloudpickle
from distributed import get_client, get_worker

from scaleml.api.resume import begin_again
from scaleml.api.run import Run
from scaleml.api.run_facts import RunFacts
from scaleml.cluster import config
from scaleml.cluster.errors import RunFailed
from scaleml.cluster.events import RunState
from scaleml.cluster.launcher import Generation
from scaleml.cluster.results import Result
from scaleml.cluster.secede import seceded
from scaleml.runtime.plan import Plan
from scaleml.runtime.serialization import fault_from
from scaleml.telemetry.history import History
from scaleml.telemetry.history_copy import Seen, news

VERBS: Final = ("pause", "resume", "stop", "update", "inject")
_runs: Final[dict[str, Run]] = {}


@dataclass(frozen=True)
class Standing:
    """How a detached run stands.

    Parameters
    ----------
    run : str
        Its id: another one where it was begun again.
    state, error, topology
        As of a `Run`.
    version : tuple of int
        Of what follows.
    generation : Generation or None
        Who trains now; None where that is known.
    plan : Plan or None
        In force; None where that is known.
    """

    run: str
    state: RunState
    error: str | None
    topology: str | None
    version: tuple[int, ...]
    generation: Generation | None
    plan: Plan | None


@dataclass(frozen=True)
class Record:
    """All of a detached run that another process needs to show it as its own.

    Parameters
    ----------
    facts : RunFacts
        What is known beside the plan.
    first : Generation
        Who began it.
    standing : Standing
        How it stands.
    history : History
        So far.
    result : Result or None
        What it has left, once it is over.
    """

    facts: RunFacts
    first: Generation
    standing: Standing
    history: History
    result: Result | None


def detached_main(name: str, start: Callable[..., Run], call: bytes, place: list[str]) -> bytes:
    """Start a run and wait for its end; runs as a Dask task, seceded, on any worker.

    Parameters
    ----------
    name : str
        Of the run.
    start : callable
        `scaleml.start`.
    call : bytes
        Its pickled arguments.
    place : list of str
        The keys of the scheduler's metadata under which others find the worker that this runs on, and how many ranks there are.

    Returns
    -------
    bytes
        The pickled `Record` of the run that is over.
    """
    client = get_client()
    with seceded():
        arguments = cloudpickle.loads(call)
        if before := client.get_metadata(place):  # the worker that drove it was lost, and its ranks with that
            ranks = int(before["ranks"])
            client.wait_for_workers(ranks, timeout=config.seconds("recovery-timeout"))
            run = begin_again(start, {**arguments, "workers": ranks}, client)
        else:
            run = start(**arguments, client=client)
        _runs[name] = run
        first = run._driver.generation
        try:
            client.set_metadata(place, {"worker": get_worker().address, "ranks": run.workers})
            with contextlib.suppress(RunFailed):  # whoever is attached is told why
                run.wait()
            return _pickled(_record(run, first))
        finally:
            del _runs[name]


def record(name: str) -> bytes | None:
    """Return the pickled `Record` of a run that this process drives; None where it is not here."""
    run = _runs.get(name)
    return None if run is None else _pickled(_record(run, run._driver.generation))


def look(name: str, seen: Seen, version: tuple[int, ...]) -> bytes | None:
    """Return, pickled, the standing and the news of a run that this process drives; None where it is not here."""
    run = _runs.get(name)
    return None if run is None else _pickled((_standing(run, version), news(run.history, seen)))


def tell(name: str, verb: str, settings: Mapping[str, Any]) -> bool:
    """Tell a run that this process drives what to do; return when it has done it, or, of a stop, at once. False where it is not here."""
    assert verb in VERBS, verb
    run = _runs.get(name)
    if run is None:
        return False
    if verb == "stop":
        threading.Thread(target=run.stop, name="scaleml-stop", daemon=True).start()
    elif verb == "inject":
        run.inject(fault_from(dict(settings)))
    else:
        getattr(run, verb)(**settings)
    return True


def _record(run: Run, first: Generation) -> Record:
    return Record(run._facts, first, _standing(run, ()), run.history, run._driver.result)


def _standing(run: Run, known: tuple[int, ...]) -> Standing:
    driver, plan = run._driver, run.plan
    # A command that has taken effect stands in the history.
    version = (driver.generation.number, len(run.history.changes))
    return Standing(
        run=driver.name,
        state=run.state,
        error=driver.error,
        topology=driver.topology,
        version=version,
        generation=None if version == known else driver.generation,
        plan=None if version == known else plan,
    )


def _pickled(thing: object) -> bytes:
    return bytes(cloudpickle.dumps(thing))
