"""``spmd``: one program on many ranks, from a notebook: results and output come back, and so does the first error."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Final, TypeVar, cast

from distributed import Client

from scaleml.api.validation import check_workers
from scaleml.cluster import calls, config
from scaleml.cluster.errors import RunFailed, StartFailed
from scaleml.cluster.host_facts import hosts_of
from scaleml.cluster.installation import IMPORTING
from scaleml.cluster.placement import Placement, Workers, wanted_resources
from scaleml.cluster.program import ProgramOutcome, ProgramSettings
from scaleml.cluster.program_driver import Line, ProgramDriver
from scaleml.cluster.ready_workers import ReadyWorkers, ready_workers
from scaleml.cluster.secede import seceded
from scaleml.cluster.user_modules import why_missing
from scaleml.frameworks.backend import BACKENDS, packages_of
from scaleml.frameworks.current_rank import current_rank
from scaleml.strategies import Layout
from scaleml.telemetry.problem import named

Result = TypeVar("Result")

_NO_RANK: Final = "spmd inside a program of spmd: its ranks are placed from the client's process, so call it there, or one after the other"


@seceded()
def spmd(
    function: Callable[..., Result],
    *args: object,
    workers: Workers = None,
    client: Client | None = None,
    backend: str | None = None,
    **kwargs: object,
) -> list[Result]:
    """Run a function on every rank at the same time, one rank a Dask worker, and return what each has returned.

    Single program, multiple data, as with ``mpirun``, ``horovodrun`` or ``torchrun``, but from a notebook or any Python process, on a
    cluster that is there already. Inside, ``scaleml.rank()`` and ``scaleml.size()`` tell the ranks apart, and
    ``scaleml.communicator()`` links them. What ranks print and log appears here, each line behind its rank.

    Parameters
    ----------
    function : callable
        Called as ``function(*args, **kwargs)`` on every rank. One that is defined in a notebook's cell, in ``__main__`` or in a file of
        your own travels by value.
    *args, **kwargs
        The same for all ranks, but that of a ``dask.distributed.Future`` its value is given. Names that are spmd's own go into
        ``functools.partial(function, workers=...)``.
    workers : int, list of addresses or names, or None
        How many ranks, or which workers; None for all there are.
    client : distributed.Client, optional
        Default: the current one, else an embedded cluster that is made once and closed at exit.
    backend : {"gloo", "nccl", "cpu:gloo,cuda:nccl", "torchrun", "jax"}, optional
        What else is started between the ranks before, and ended after the function: ``torch.distributed`` with that backend, so that
        ``DistributedDataParallel``, ``fully_shard`` or ``torch.distributed.pipelining`` work; with ``"torchrun"`` only the environment
        that torchrun sets (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``, ...), for scripts that call
        ``init_process_group`` themselves; ``"jax"`` is ``jax.distributed``. None of these encrypts what it sends or asks for
        a secret, on a ``tls://`` cluster neither; ``scaleml.communicator()`` does.

    Returns
    -------
    list
        What the function returned, in rank order.

    Raises
    ------
    RunFailed
        When a rank raises, dies or is lost: the first cause, with its rank, worker and traceback there; ``__cause__`` is the exception
        itself, where it can be pickled. All other ranks are ended at once.
    StartFailed
        When a rank does not come up, or a worker lacks a package.
    ValueError, TypeError
        For arguments that break a rule, at once.
    KeyboardInterrupt
        After Ctrl-C; the ranks have ended, and the cluster can be used.

    Notes
    -----
    The function runs in a thread of its worker's process, not in its main thread: it cannot set signal handlers. Global variables of
    modules stay from one program to the next, as they do from cell to cell. A rank that waits outside of Python, as in
    ``time.sleep(1000)``, cannot be told to end: its worker is restarted if it is one of the embedded cluster.

    Examples
    --------
    >>> import numpy as np
    >>> import scaleml
    >>> def mean_of(x):
    ...     mine = np.array_split(x, scaleml.size())[scaleml.rank()]
    ...     print("has", len(mine))
    ...     return scaleml.communicator().allreduce(mine.sum()) / len(x)
    >>> scaleml.spmd(mean_of, np.arange(5.0), workers=2)  # doctest: +SKIP
    [rank 0] has 3
    [rank 1] has 2
    [2.0, 2.0]
    """
    _check(function, backend)
    check_workers(workers)
    ready = ready_workers(client, workers)
    _check_backend(backend, ready)
    placement = Placement(
        Layout(len(ready.chosen)),
        tuple(ready.chosen),
        min(int(ready.facts[address]["nthreads"]) for address in ready.chosen),
        wanted_resources(),
    )
    settings = ProgramSettings(backend, config.port_range(), config.result_limit())
    driver = ProgramDriver(ready.client, placement, (function, args, kwargs), settings)
    driver.start()
    is_interrupted = False
    try:
        _show(driver)
    except KeyboardInterrupt:
        is_interrupted = True
    except BaseException:  # printing failed
        driver.stop()
        raise
    if is_interrupted:  # not above: a second Ctrl-C need not tell of the first
        driver.stop()
        _show(driver)
    if driver.stuck:
        warnings.warn(
            f"the ranks on {', '.join(driver.stuck)} have not ended: they are in a call that Python cannot break off; they end with it, or "
            f"with client.restart_workers({driver.stuck})",
            RuntimeWarning,
            stacklevel=2,
        )
    if is_interrupted:
        raise KeyboardInterrupt
    if driver.error is not None:
        raise _failure(driver)
    return [
        cast("Result", _value(rank, address, outcome))
        for (rank, address), outcome in zip(enumerate(placement.addresses), driver.outcomes, strict=True)
    ]


def _show(driver: ProgramDriver) -> None:
    for line in driver.lines():
        _print(line)


def _print(line: Line) -> None:
    rank, stream, text = line
    print(f"[rank {rank}] {text}", file=getattr(sys, stream), flush=True)


def _check(function: object, backend: object) -> None:
    if not callable(function):
        raise TypeError(
            f"function={function!r}: must be callable; spmd calls it with the other arguments on every rank"
        )
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: must be one of {', '.join(map(repr, BACKENDS))}, or None")
    if current_rank() is not None:
        raise ValueError(_NO_RANK)


def _check_backend(backend: str | None, ready: ReadyWorkers) -> None:
    """Refuse a backend that workers lack, or that their processes cannot have twice."""
    if backend is None:
        return
    hosts = hosts_of(ready.client, ready.chosen, ready.facts)
    processes = {(hosts[address]["boot"], hosts[address]["pid"]) for address in ready.chosen}
    if len(processes) < len(ready.chosen):
        raise ValueError(
            f"backend={backend!r}: a process can be one rank of it, but some of these {len(ready.chosen)} workers are threads of one "
            "process; use a cluster with a process a worker (LocalCluster(processes=True)), or scaleml.communicator() without a backend"
        )
    packages = packages_of(backend)
    answers = calls.on_workers(ready.client, IMPORTING, why_missing, [], packages, workers=ready.chosen)
    for package in packages:
        lacking = [address for address in ready.chosen if answers[address][package]]
        if lacking:
            raise StartFailed(
                f"backend={backend!r}: {named(lacking)} cannot import {package} ({answers[lacking[0]][package]}): install it there "
                f"(pip install {package})"
            )


def _failure(driver: ProgramDriver) -> RunFailed:
    outcome = None if driver.culprit is None else driver.outcomes[driver.culprit]
    assert driver.error is not None
    if outcome is None or not outcome.trace:
        return RunFailed(driver.error)
    failed = RunFailed(f"{driver.error}\n\nOn rank {driver.culprit}:\n{outcome.trace.rstrip()}")
    try:
        failed.__cause__ = pickle.loads(outcome.exception) if outcome.exception else None
    except Exception:  # noqa: BLE001  its class is known on the worker alone: its words stand above
        failed.__cause__ = None
    return failed


def _value(rank: int, address: str, outcome: ProgramOutcome | None) -> object:
    assert outcome is not None
    try:
        return pickle.loads(outcome.value)
    except Exception as error:
        raise RunFailed(
            f"what rank {rank} on worker {address} returned cannot be unpickled here ({type(error).__name__}: {error}): return plain "
            "values or arrays, or install here what it needs"
        ) from error
