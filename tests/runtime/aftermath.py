"""What a run must leave behind: nothing. Functions that look, on the client, on workers and on the scheduler."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from typing import Any

import cloudpickle
import psutil
from distributed import Client

import leaks
from runtime import harness

# Workers cannot import the tests' folder: what is sent to them travels whole.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def strangers(process: int | None, known: frozenset[int]) -> frozenset[str]:
    """Return a process's TCP sockets that have none of the `known` ports at either end."""
    found = set()
    for socket in psutil.Process(process).net_connections("tcp"):
        ends = [end for end in (socket.laddr, socket.raddr) if end]
        if not any(end.port in known for end in ends):
            found.add(f"{socket.status} {[end.port for end in ends]}")
    return frozenset(found)


def look_at_worker(known: frozenset[int], dask_worker: Any = None) -> dict[str, frozenset[str]]:
    """Return what of runs is on a worker."""
    from scaleml.cluster import endpoint

    residue = leaks.look(sockets=False)
    return {
        "tasks": frozenset(str(key) for key in dask_worker.state.tasks if str(key).startswith("scaleml-")),
        "endpoints": frozenset(str(key) for key in [*endpoint._open, *endpoint._taken]),
        "threads": frozenset(name.partition("#")[0] for name in residue.threads),
        "segments": residue.segments,
        "sockets": strangers(None, known),
    }


def tasks_of_scheduler(dask_scheduler: Any = None) -> list[str]:
    """Return the tasks of runs that the scheduler knows."""
    return [str(key) for key in dask_scheduler.tasks if str(key).startswith("scaleml-")]


def ports_of_dask(client: Client) -> frozenset[int]:
    """Return the ports of the scheduler, the workers and their nannies."""
    assert client.scheduler is not None
    addresses = [client.scheduler.address]
    for address, facts in client.scheduler_info(n_workers=-1)["workers"].items():
        addresses += [address, facts.get("nanny") or ""]
    return frozenset(int(address.rpartition(":")[2]) for address in addresses if address)


@dataclass
class Watch:
    """Looks at a cluster before a run, and afterwards whether anything of the run is left."""

    client: Client

    def __post_init__(self) -> None:
        self.here = leaks.look(sockets=False)
        self.sockets = strangers(None, ports_of_dask(self.client))
        self.before = self.client.run(look_at_worker, ports_of_dask(self.client))

    def nothing_left(self, deadline: float = 5.0) -> None:
        """Fail if something of a run is left on the client, the scheduler or a worker for so many seconds."""
        found: dict[str, Any] = {}

        def clean() -> bool:
            found.clear()
            try:
                found.update(self._left())
            except OSError as error:  # Dask still used a connection to a worker that was killed
                found["not asked"] = error
            return not found

        assert harness.await_condition(clean, deadline), f"left behind: {found}"

    def _left(self) -> dict[str, Any]:
        left: dict[str, Any] = {}
        if tasks := self.client.run_on_scheduler(tasks_of_scheduler):
            left["scheduler"] = tasks
        ports = ports_of_dask(self.client)
        for address, now in self.client.run(look_at_worker, ports).items():
            before = self.before.get(address, {})
            for what, things in now.items():
                new = things - before.get(what, frozenset())
                if what in ("threads", "sockets") and not before:
                    new = frozenset(thing for thing in new if "scaleml" in thing)  # a replacement's own
                if what == "segments":
                    new = frozenset(filter(leaks.of_this_process, new))
                if new:
                    left[f"{address}: {what}"] = set(new)
        here = leaks.look(sockets=False).minus(self.here)
        here = leaks.Residue(here.threads, segments=frozenset(filter(leaks.of_this_process, here.segments)))
        runs = {name for name in here.threads if "scaleml" in name} | here.segments
        if runs:
            left["client"] = runs
        if new := strangers(None, ports) - self.sockets:
            left["client's sockets"] = set(new)
        return left


def threads_of_runs() -> list[str]:
    """Return the names of this process's threads that drive runs."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("scaleml-run")]
