"""``train`` and ``start``: from data and settings to a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from inspect import signature
from typing import Any, Final

from distributed import Client

from scaleml.api.fault_validation import check_faults, check_victims
from scaleml.api.run import Run
from scaleml.api.settings import Settings, check_names
from scaleml.api.strategy_switch import check_roles
from scaleml.api.trained_model import TrainedModel
from scaleml.cluster import calls, config
from scaleml.cluster.driver import Driver
from scaleml.cluster.embedded import check_client, find_client
from scaleml.cluster.host_facts import facts_of
from scaleml.cluster.placement import Placement, candidates, check_workers, place
from scaleml.cluster.secede import seceded
from scaleml.cluster.staging.collection import Find
from scaleml.cluster.staging.dataplane import Data
from scaleml.cluster.staging.memory import check_memory
from scaleml.faults import Fault
from scaleml.models import Model
from scaleml.optim import SGD, Optimizer
from scaleml.runtime.plan import Plan
from scaleml.runtime.sparsity import check_sparse
from scaleml.strategies import AllReduce, Strategy


def launch(settings: Settings, data: Data, client: Client, own_cluster: bool, workers: Any) -> Run:
    """Start a run on data that is already placed."""
    began = time.perf_counter()
    plan, placement = prepare(settings, data, client, own_cluster, workers)
    ranks = placement.layout.workers
    owned = [plan.owned(rank) for rank in range(ranks)]
    data.placed.bring(client, placement.addresses[:ranks], len(plan.shard_sizes), owned)
    hosts = {facts["boot"]: facts["cores"] for facts in facts_of(client, placement.workers).values()}
    facts = {
        "hosts": len(hosts),
        "cores": sum(hosts.values()),
        "placing_seconds": data.placing_seconds + time.perf_counter() - began,
    }
    driver = Driver(client, plan, placement, data.placed)
    run = Run(
        driver,
        label=settings.label or repr(settings.strategy),
        trained=partial(TrainedModel, data.network, data.signature, classes=data.classes),
        facts=facts,
        own_cluster=own_cluster,
    )
    driver.start(run.history.take, run.history.mark, run.on_change)
    return run


def prepare(settings: Settings, data: Data, client: Client, own_cluster: bool, workers: Any) -> tuple[Plan, Placement]:
    """Return what a run would be on the cluster as it is now; raises ValueError or TypeError for what does not fit it."""
    info = calls.identity(client, 10.0)
    chosen = candidates(info, workers, own_cluster)
    chosen = data.placed.nearest(chosen, settings.strategy.layout(len(chosen)).workers)
    placement = place(settings.strategy, chosen, info)
    training = placement.layout.workers
    shards = settings.shards or training
    if shards < training:
        raise ValueError(
            f"shards={shards} for {training} ranks: each rank needs at least one; give a multiple of the ranks"
        )
    if data.rows < shards:
        fewer = "workers" if settings.shards is None else "shards"
        raise ValueError(
            f"{data.rows} training rows for {shards} shards: each shard needs at least one row; use fewer {fewer}"
        )
    check_roles(settings.strategy, placement, data.network, settings.optimizer, client)
    check_faults(settings.faults, placement.layout, own_cluster)
    check_victims(settings.faults, placement, client)
    batch_size = min(int(settings.batch_size), data.rows)
    rows = max(1, batch_size // settings.strategy.updates_a_batch(training))
    watched = data.placed.held_out is not None or settings.stop is not None
    plan = Plan(
        network=data.network,
        strategy=settings.strategy,
        optimizer=settings.optimizer,
        layout=placement.layout,
        shard_sizes=tuple(data.rows * (s + 1) // shards - data.rows * s // shards for s in range(shards)),
        epochs=int(settings.epochs),
        batch_size=batch_size,
        seed=int(settings.seed),
        dtype=data.signature.dtype,
        evaluate_every=max(1, data.rows // settings.evaluations_an_epoch) if watched else 0,
        faults=tuple(settings.faults),
        stop=settings.stop,
        start=settings.begin,
        steps=None if settings.steps is None else settings.steps(rows),
        keep_end=settings.keep_end,
        snapshots=settings.snapshots,
        by_rows=settings.by_rows,
    )
    check_sparse(plan.strategy, plan.why_dense)
    check_memory(info, placement, plan, data.placed, config.memory_share())
    return plan, placement


def finder(client: Client | None, workers: Any) -> Find:
    """Return a function that finds the cluster, and the workers on it that data may lie on."""

    def find() -> tuple[Client, Sequence[str] | None]:
        found, own = find_client(client, workers)
        info = calls.identity(found, 10.0)
        chosen = candidates(info, workers, own)
        return found, None if len(chosen) == len(info) else chosen

    return find


def start(
    model: Model,
    X: Any,
    y: Any,
    *,
    strategy: Strategy | None = None,
    optimizer: Optimizer | None = None,
    epochs: int = 5,
    batch_size: int = 256,
    workers: int | Sequence[str] | None = None,
    client: Client | None = None,
    validation: Any = None,
    sample_weight: Any = None,
    shards: int | None = None,
    seed: int = 0,
    faults: Sequence[Fault] | None = None,
    checkpoint: Any = None,
    on_worker_lost: str = "raise",
) -> Run:
    """Start training and return at once, when the data has been copied; see ``train`` for the parameters.

    Examples
    --------
    >>> import scaleml
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> run = scaleml.start(scaleml.LinearModel(), X / 16, y, strategy=scaleml.Serial(), epochs=2)  # doctest: +SKIP
    >>> run.wait().state  # doctest: +SKIP
    'finished'
    """
    settings = Settings(
        model=model,
        strategy=AllReduce() if strategy is None else strategy,
        optimizer=SGD(0.1) if optimizer is None else optimizer,
        epochs=epochs,
        batch_size=batch_size,
        shards=shards,
        seed=seed,
        faults=() if faults is None else faults,  # type: ignore[arg-type]  # checked there
    )
    if checkpoint is not None:
        raise ValueError(f"checkpoint={checkpoint!r}: this version writes no checkpoints; keep run.params instead")
    if on_worker_lost != "raise":
        raise ValueError(
            f"on_worker_lost={on_worker_lost!r}: this version ends the run when a worker is lost; use 'raise'"
        )
    check_client(client)
    check_workers(workers)
    # The data before the cluster, unless it lies there: an error in it should not have to wait for processes to start.
    data = Data(model, X, y, sample_weight, validation, settings.seed, finder(client, workers))
    try:
        found, own = find_client(client, workers)
        run = launch(settings, data, found, own, workers)
    except BaseException:
        data.close()
        raise
    run.when_over(data.close)
    return run


_NAMES: Final = tuple(signature(start).parameters)


@seceded()
def train(model: Model, X: Any, y: Any, **settings: Any) -> Run:
    """Train a model on data that is partitioned among ranks, and wait for the end.

    Parameters
    ----------
    model : Model
        ``LinearModel(...)`` or ``MLP(...)``.
    X : array-like, CSR matrix, pandas or Dask dataframe, or Dask array of shape (rows, features)
        Real numbers, finite. The blocks of a Dask array may be dense or CSR; its chunks of rows need not be known.
    y : array-like, pandas or Dask collection of shape (rows,) or (rows, targets)
        Labels of any kind, or real targets. Any mix with X.
    strategy : Strategy
        How ranks work together. Default ``AllReduce()``.
    optimizer : Optimizer
        Default ``SGD(0.1)``.
    epochs : int
        Passes over the data.
    batch_size : int
        The *global* batch, in rows: the same mathematics whatever the number of workers. Asynchronous and local
        strategies step on ``batch_size / N`` rows a rank.
    workers : int, list of addresses or names, or None
        One rank a worker; None for all.
    client : distributed.Client, optional
        Default: the current one, else an embedded cluster that is made once and closed at exit.
    validation : (X, y), (X, y, sample_weight), float or None
        Held-out data of any kind, or the fraction of the rows to hold out (of a Dask collection, within each partition);
        evaluated each epoch, outside the training clock.
    sample_weight : array-like or Dask collection of shape (rows,), optional
        Weights of the rows.
    shards : int, optional
        Into how many pieces the data is cut; default the number of ranks. The result depends on the shards, not on which rank
        owns them.
    seed : int
        Decides the order of the rows and the first parameters.
    faults : sequence of Fault, optional
        What to break on purpose; see ``scaleml.faults``. Its steps are those of the rank it concerns.
    checkpoint : None
        Reserved.
    on_worker_lost : {"raise"}
        A lost worker ends the run.

    Returns
    -------
    Run
        In state ``finished``; or ``stopped``, after Ctrl-C.

    Raises
    ------
    ValueError, TypeError
        For data or settings that break a rule, at once.
    StartFailed
        When a worker's memory limit is too small, with the figures, or a rank does not come up.
    RunFailed
        When a rank fails, a worker is lost or the client closes; names rank, worker, step and cause.

    Notes
    -----
    **Dask collections** stay where they are. One task a partition checks it, converts it to the model's dtype, shuffles its rows
    and writes them to a file in its worker's folder, while Dask lets go of the partition itself; classes and columns are found
    on the way. Shards are equal runs of all rows, so the number and the sizes of the partitions do not matter, and neither
    does where they were: the same collection, seed, shards and ranks give the same bits. The files go when the run is over, or
    when its client has vanished.

    **Memory.** While it stages, a worker holds one partition for each of its threads, and 16 MB. While it trains, it holds its part of
    the data if that is at most a quarter of the worker's memory limit (``scaleml.memory-share`` in Dask's configuration), else three
    blocks of 8 MB for each of its shards, the next one read from disk while one is in use; and its part of a batch, and
    eight arrays of the size of the parameters. Its process as such takes 80 to 150 MB.

    Examples
    --------
    >>> import scaleml
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> run = scaleml.train(scaleml.LinearModel(), X / 16, y, epochs=5, validation=0.2)  # doctest: +SKIP
    >>> run.model.predict(X[:1] / 16)  # doctest: +SKIP
    array([0])
    """
    check_names("train", _NAMES, settings)
    return start(model, X, y, **settings).wait()
