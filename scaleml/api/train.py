"""``train`` and ``start``: from data and settings to a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from inspect import signature
from typing import Final, TypedDict, Unpack

from distributed import Client

from scaleml.api.run import Run
from scaleml.api.run_facts import RunFacts
from scaleml.api.scoring import baseline_score, score_name, score_rule
from scaleml.api.settings import Settings, check_names
from scaleml.api.trainable import EstimatorLike, Given, PipelineLike, trainable
from scaleml.api.trained_model import TrainedModel
from scaleml.api.validation import ClusterFacts, check_run, check_shards, check_workers
from scaleml.clock import WALL
from scaleml.cluster import calls
from scaleml.cluster.current_client import check_client
from scaleml.cluster.driver import Driver
from scaleml.cluster.embedded import find_client
from scaleml.cluster.host_facts import hosts_of
from scaleml.cluster.placement import Placement, Workers, candidates, place
from scaleml.cluster.secede import seceded
from scaleml.cluster.staging.training_data import TrainingData
from scaleml.escaping import printable
from scaleml.faults import Fault
from scaleml.models import Model
from scaleml.optim import Optimizer
from scaleml.runtime.held_out_score import Scorer
from scaleml.runtime.plan import Plan
from scaleml.runtime.stop_rule import StopRule
from scaleml.strategies import Strategy
from scaleml.telemetry.progress import Progress

_log = logging.getLogger(__name__)


def launch(settings: Settings, data: TrainingData, client: Client, own_cluster: bool, workers: Workers) -> Run:
    """Start a run on data that is already placed."""
    began = WALL.now()
    plan, placement = prepare(settings, data, client, own_cluster, workers)
    ranks = placement.layout.workers
    owned = [plan.owned(rank) for rank in range(ranks)]
    data.placed.bring(client, placement.addresses[:ranks], len(plan.shard_sizes), owned)
    cores = {facts["boot"]: facts["cores"] for facts in hosts_of(client, placement.workers).values()}
    facts = RunFacts(
        label=settings.label or repr(settings.strategy),
        trained=partial(TrainedModel.of_run, data.network, data.signature, data.classes),
        hosts=len(cores),
        cores=sum(cores.values()),
        placing_seconds=data.placing_seconds + WALL.now() - began,
        own_cluster=own_cluster,
        place=settings.place,
        score_name=score_name(plan.score, data.network),
        baseline_score=baseline_score(plan.score, data.network, data.classes, data.tally),
        fitted=settings.fitted,
        advice=data.advice,
    )
    driver = Driver(client, plan, placement, data.placed)
    run = Run(driver, facts)
    _log.info(
        "run %s: %s, %s; data placed in %.2f s",
        *(driver.name, printable(facts.label), run.settings, facts.placing_seconds),
    )
    driver.start(run.on_change)
    return run


def prepare(
    settings: Settings, data: TrainingData, client: Client, own_cluster: bool, workers: Workers
) -> tuple[Plan, Placement]:
    """Return what a run would be on the cluster as it is now.

    Raises
    ------
    ValueError, TypeError, StartFailed
        For what does not fit it: see `scaleml.api.validation`.
    """
    info = calls.identity(client)
    chosen = candidates(info, workers, own_cluster)
    chosen = data.placed.nearest(chosen, settings.strategy.layout(len(chosen)).workers)
    placement = place(settings.strategy, chosen, info)
    training = placement.layout.workers
    shards = check_shards(settings.shards, data.rows, training)
    optimizer, stop = settings.optimizer, settings.stop
    batch_size = min(int(settings.batch_size), data.rows)
    part_rows = None if settings.microbatch is None else training * int(settings.microbatch)
    if optimizer.takes_all_rows:
        batch_size, part_rows = data.rows, min(training * data.rows_at_once, part_rows or data.rows)
        stop = StopRule(tol=None) if stop is None else stop  # it says itself when it has converged
    rows = max(1, batch_size // settings.strategy.updates_a_batch(training))
    if settings.scoring is not None and data.placed.held_out is None:
        raise ValueError(f"scoring={settings.scoring!r}, but no rows are held out to score: pass validation=0.2, say")
    cluster = ClusterFacts.of(client, info, placement, is_own=own_cluster)
    watched = data.placed.held_out is not None or stop is not None
    plan = Plan(
        model=data.network,
        strategy=settings.strategy,
        optimizer=optimizer,
        layout=placement.layout,
        shard_sizes=tuple(data.rows * (s + 1) // shards - data.rows * s // shards for s in range(shards)),
        epochs=int(settings.epochs),
        batch_size=batch_size,
        seed=int(settings.seed),
        dtype=data.signature.dtype,
        evaluate_every=max(1, data.rows // settings.evaluations_an_epoch) if watched else 0,
        faults=tuple(settings.faults),
        stop=stop,
        start=settings.begin,
        steps=None if settings.steps is None else settings.steps(rows),
        part_rows=part_rows,
        keep_end=settings.keep_end,
        nonzeros=data.placed.train.nonzeros,
        one_memory=cluster.share_memory(placement),
        snapshots=settings.snapshots,
        augment=tuple(settings.model.augment),
        by_rows=settings.by_rows,
        score=score_rule(settings.scoring, data.network, data.classes, data.signature),
    )
    check_run(plan, placement, data.placed, cluster)
    return plan, placement


def start(
    model: Model | EstimatorLike | PipelineLike,
    X: object,
    y: object = None,
    *,
    strategy: Strategy | None = None,
    optimizer: Optimizer | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    workers: Workers = None,
    client: Client | None = None,
    validation: object = None,
    sample_weight: object = None,
    shards: int | None = None,
    seed: int | None = None,
    faults: Sequence[Fault] | None = None,
    scoring: str | Scorer | None = None,
    microbatch: int | None = None,
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
    faults = () if faults is None else faults
    given = Given(
        *(X, y, sample_weight, validation),
        strategies=[strategy],
        optimizers=[optimizer],
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        client=client,
        workers=workers,
    )
    check_client(client)
    check_workers(workers)
    task = trainable(model, given)
    client, workers = task.given.client, task.given.workers
    try:
        settings = task.settings(
            strategy=strategy,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            shards=shards,
            faults=faults,
            scoring=scoring,
            microbatch=microbatch,
        )
    except BaseException:
        task.close()
        raise
    # The data before the cluster, unless it lies there: an error in it should not have to wait for processes to start.
    data = task.data(settings.uses)
    try:
        found, own = find_client(client, workers)
        run = launch(settings, data, found, own, workers)
    except BaseException:
        data.close()
        raise
    run.when_over(data.close)
    return run


_NAMES: Final = (*signature(start).parameters, "progress")


class TrainSettings(TypedDict, total=False):
    """The settings of ``train`` and ``start``."""

    strategy: Strategy | None
    optimizer: Optimizer | None
    epochs: int | None
    batch_size: int | None
    workers: Workers
    client: Client | None
    validation: object
    sample_weight: object
    shards: int | None
    seed: int | None
    faults: Sequence[Fault] | None
    scoring: str | Scorer | None
    microbatch: int | None


@seceded()
def train(
    model: Model | EstimatorLike | PipelineLike,
    X: object,
    y: object = None,
    *,
    progress: bool | None = None,
    **settings: Unpack[TrainSettings],
) -> Run:
    """Train a model on data that is partitioned among ranks, and wait for the end.

    Parameters
    ----------
    model : Model, estimator or Pipeline
        ``LinearModel(...)`` or ``MLP(...)``. Or an estimator of ``scaleml.linear_model`` or ``scaleml.neural_network``, or a scikit-learn
        ``Pipeline`` that ends in one: it is left as it is, `run.estimator` is a fitted copy, and its own settings hold where
        nothing else is said here (see Notes).
    X : array-like, CSR matrix, pandas or Dask dataframe, or Dask array of shape (rows, features)
        Real numbers, finite. The blocks of a Dask array may be dense or CSR; its chunks of rows need not be known.
        Models such as ``TorchModel`` take arrays (rows, ...), dicts and tuples of such, and datasets: ``docs/data-of-any-shape.md``.
    y : array-like, pandas or Dask collection of shape (rows,) or (rows, targets)
        Labels of any kind, or real targets. Any mix with X. None where X is a dataset.
    strategy : Strategy
        How ranks work together. Default ``AllReduce()``.
    optimizer : Optimizer
        Default ``SGD(0.1)``.
    epochs : int
        Passes over the data, 5 by default.
    batch_size : int
        The *global* batch, in rows, 256 by default: the same mathematics whatever the number of workers. Asynchronous and local
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
        Into how many parts the data is cut; default the number of ranks. The result depends on these, not on which rank owns them.
    seed : int
        Decides the order of the rows and the first parameters; 0 by default.
    faults : sequence of Fault, optional
        What to break on purpose; see ``scaleml.faults``. Its steps are those of the rank it concerns.
    scoring : str or callable, optional
        What the held-out rows are scored by at each evaluation: one of scikit-learn's scorers, such as ``"balanced_accuracy"``,
        ``"roc_auc"`` or ``"neg_log_loss"``, the result of its ``make_scorer``, or ``scorer(estimator, X, y)``; larger is better. Default
        accuracy, or R squared. It is computed on the first rank, outside the training clock, from what all ranks predict;
        a function of one's own is given all held-out rows, which have to fit there.
    microbatch : int, optional
        Gradient accumulation: the rows that a rank computes its gradient of at once, adding up until it has its part of ``batch_size``.
    progress : bool, optional
        Whether to show how far it is. Default: in a notebook and in a terminal, but neither in pipes nor in threads.

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
    on the way. Shards are equal runs of all rows, so the partitions' number, sizes and places do not matter: the same collection, seed,
    shards and ranks give the same bits. The files go when the run is over, or when its client has vanished.

    **Estimators** are trained as their ``fit`` with that strategy would: in the same steps (unless an `optimizer` is given here), in the
    estimator's batches, for at most ``max_iter`` epochs with its rule when to stop, or for exactly as many as `epochs` says.
    ``random_state`` is the seed. With ``early_stopping`` and no `validation`, ``validation_fraction`` is held out. A pipeline's
    transformers are fitted once, on the rows to train on only, and held-out rows are transformed by what was learnt there.

    **Memory.** While it stages, a worker holds one partition for each of its threads, and 16 MB. While it trains, it holds its part of
    the data if that is at most a quarter of the worker's memory limit (``scaleml.memory-share`` in Dask's configuration), else three
    blocks of 8 MB for each of its shards, the next one read from disk while one is in use; its part of a batch; parameters, gradient,
    slots and four copies. Its process takes 80 to 150 MB. What cannot fit is refused before anything starts, with these figures.

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
    with Progress("train", progress) as shown:
        run = start(model, X, y, **settings)
        shown.on_run(run)
        return run.wait()
