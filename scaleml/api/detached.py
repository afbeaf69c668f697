"""Detached runs: they stay on the cluster when the process that started them goes, and another one attaches to them by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import cloudpickle
from distributed import Client, Future, futures_of

from scaleml.api.detached_driver import DetachedDriver
from scaleml.api.detached_sender import DetachedSender
from scaleml.api.detached_task import detached_main
from scaleml.api.run import Run
from scaleml.cluster import calls
from scaleml.cluster.current_client import check_client, current_client
from scaleml.cluster.embedded import is_embedded
from scaleml.cluster.host_facts import hosts_of
from scaleml.cluster.submission import submit
from scaleml.cluster.user_modules import carried_modules

_PREFIX: Final = "scaleml/"
"""What the published datasets of the scheduler that hold runs begin with."""
_MOST: Final = 256e6
_NAME: Final = re.compile(r"[\w.-]{1,80}")


def start_detached(
    start: Callable[..., Run], detached: bool | str, client: Client | None, arguments: Mapping[str, object]
) -> Run:
    """Start a run that stays on the cluster; what `start` does with ``detach``.

    Parameters
    ----------
    start : callable
        That function.
    detached : str or True
        The run's name; True: one is made.
    client : Client or None
        The cluster; None for the current one.
    arguments : mapping
        Those of `start`, but for the client.

    Raises
    ------
    ValueError
        For a name that is taken or none; for callbacks, which belong to this process; without a cluster that outlives it; for data in
        this process that is too large to go along.
    """
    found = _cluster(client)
    if arguments.get("callbacks"):
        raise ValueError(
            "callbacks run in the process that follows a run, and a detached one outlives that: leave them out, and use "
            "scaleml.attach(name) with a loop over run.history"
        )
    name = _checked_name(found, detached)
    call = bytes(cloudpickle.dumps(dict(arguments)))
    if len(call) > _MOST:
        raise ValueError(
            f"the arguments of a detached run are {len(call) / 1e6:,.0f} MB, but go through the scheduler, which takes {_MOST / 1e6:g} MB "
            "here: pass X and y as Dask collections, such as dask.array.from_zarr(...), or persisted ones"
        )
    info = calls.identity(found)
    hosts_of(found, list(info), info)
    carried = carried_modules(found, list(info), [value for key, value in arguments.items() if key not in ("X", "y")])
    place = _place(name)
    found.set_metadata(place, {})
    future: Future[bytes] = submit(
        found, detached_main, name, start, call, place, carried=carried, key=f"scaleml-detached-{name}"
    )
    try:
        # With what the data is computed from: it has to be there still when this process, and the worker that drives the run, are gone.
        held = [part for one in ("X", "y", "validation", "sample_weight") for part in futures_of(arguments.get(one))]
        found.publish_dataset([future, *held], name=_PREFIX + name)
    except KeyError:
        future.cancel()
        raise ValueError(_taken(name)) from None
    try:
        return _run_of(found, name, future)
    except BaseException:
        found.unpublish_dataset(_PREFIX + name)
        raise


def attach(name: str | None = None, client: Client | None = None) -> Run:
    """Return a detached run, live or over, with its history: in a new kernel, or beside others that are attached.

    Parameters
    ----------
    name : str, optional
        As ``detach=`` named it, or ``run.name``. None where there is but one.
    client : distributed.Client, optional
        The cluster; default the current one.

    Returns
    -------
    Run
        As if it had been started here: it can be watched, paused, updated, stopped, waited for. Ctrl-C while it is waited for ends the
        waiting, not the run.

    Raises
    ------
    ValueError
        When no run has that name, or there are several; names them.

    Notes
    -----
    The run, its history and what it has left stay until ``client.unpublish_dataset("scaleml/" + name)``, or the end of the scheduler. It is
    driven by a task on one of the workers. If that worker is lost, Dask starts the task on another one, and the run begins again from its
    newest checkpoint, or from its seed.

    Examples
    --------
    >>> run = scaleml.start(model, X, y, epochs=1000, detach="tonight", client=client)  # doctest: +SKIP
    >>> run = scaleml.attach("tonight", client=Client("tcp://scheduler:8786"))  # doctest: +SKIP
    >>> run.wait().model  # doctest: +SKIP
    """
    found = _cluster(client)
    names = [each.removeprefix(_PREFIX) for each in found.list_datasets() if str(each).startswith(_PREFIX)]
    if name is None and len(names) == 1:
        (name,) = names
    if name not in names or name is None:
        there = (
            f"there are {', '.join(map(repr, sorted(names)))}"
            if names
            else "there is none: start one with detach='name'"
        )
        asked = "which one?" if name is None else f"there is no detached run {name!r} on this cluster;"
        raise ValueError(f"{asked} {there}")
    return _run_of(found, name, _task(found, name))


def _task(client: Client, name: str) -> Future[bytes]:
    held: list[Future[bytes]] = client.get_dataset(_PREFIX + name)
    return held[0]


def _task_if_there(client: Client, name: str) -> Future[bytes] | None:
    try:
        return _task(client, name)
    except KeyError:
        return None


def _run_of(client: Client, name: str, future: Future[bytes]) -> Run:
    driver = DetachedDriver(client, name, future, _place(name), lambda: _task_if_there(client, name))
    run = Run(driver, driver.facts, DetachedSender(driver))
    driver.start(run.on_change)
    return run


def _cluster(client: Client | None) -> Client:
    check_client(client)
    found = client or current_client()
    if found is None or is_embedded(found):
        raise ValueError(
            "a detached run needs a cluster that outlives this process: start `dask scheduler` and `dask worker`, or use your site's, "
            "and pass client=distributed.Client(address)"
        )
    return found


def _checked_name(client: Client, detached: bool | str) -> str:
    taken = {str(each) for each in client.list_datasets()}
    if detached is True:
        return next(name for name in (f"run-{number}" for number in range(1, 10**6)) if _PREFIX + name not in taken)
    if not isinstance(detached, str) or not _NAME.fullmatch(detached):
        raise ValueError(f"detach={detached!r}: must be a name of up to 80 letters, digits, '.', '_' and '-', or True")
    if _PREFIX + detached in taken:
        raise ValueError(_taken(detached))
    return detached


def _taken(name: str) -> str:
    return (
        f"detach={name!r}: this cluster has a run of that name: scaleml.attach({name!r}) returns it, "
        f'client.unpublish_dataset("{_PREFIX}{name}") forgets it; or choose another name'
    )


def _place(name: str) -> list[str]:
    return ["scaleml", "detached", name]
