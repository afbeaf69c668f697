"""``train`` and ``start``: from data and settings to a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from os import PathLike
from typing import Unpack

from distributed import Client

from scaleml.api.checkpoints import check_here, told_of
from scaleml.api.detached import start_detached
from scaleml.api.launch import launch
from scaleml.api.named_settings import named_settings
from scaleml.api.run import Run
from scaleml.api.settings import TrainSettings
from scaleml.api.trainable import EstimatorLike, Given, PipelineLike, trainable
from scaleml.api.validation import check_workers
from scaleml.callbacks.base import Callback
from scaleml.callbacks.followers import CallbackList
from scaleml.checkpoint import Checkpoint
from scaleml.checkpoint.settings import as_checkpoint
from scaleml.cluster.current_client import check_client
from scaleml.cluster.embedded import find_client
from scaleml.cluster.placement import Workers, range_of
from scaleml.cluster.secede import seceded
from scaleml.faults import Fault
from scaleml.models import Model
from scaleml.optim import Optimizer
from scaleml.runtime.held_out_score import Scorer
from scaleml.strategies import Strategy
from scaleml.telemetry.progress import Progress


@named_settings()
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
    callbacks: Sequence[Callback] = (),
    device: str = "auto",
    on_worker_lost: str = "replace",
    on_nonfinite: str = "raise",
    detach: bool | str = False,
    checkpoint: str | PathLike[str] | Checkpoint | None = None,
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
    saves = as_checkpoint(checkpoint)
    if detach is not False:
        arguments = {
            "model": model,
            "X": X,
            "y": y,
            "strategy": strategy,
            "optimizer": optimizer,
            "epochs": epochs,
            "batch_size": batch_size,
            "workers": workers,
            "validation": validation,
            "sample_weight": sample_weight,
            "shards": shards,
            "seed": seed,
            "faults": faults,
            "scoring": scoring,
            "microbatch": microbatch,
            "callbacks": tuple(callbacks),
            "device": device,
            "on_worker_lost": on_worker_lost,
            "on_nonfinite": on_nonfinite,
            "checkpoint": saves if saves is None else replace(saves, url=saves.place),  # a worker has another folder
        }
        return start_detached(start, detach, client, arguments)
    faults = () if faults is None else faults
    told = CallbackList(callbacks)
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
    check_here(saves)
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
            device=device,
            on_worker_lost=on_worker_lost,
            on_nonfinite=on_nonfinite,
            checkpoint=saves,
            given={
                "epochs": None if epochs is None else int(epochs),
                "batch_size": None if batch_size is None else int(batch_size),
                "validation": validation if isinstance(validation, float) else None,
                "has_optimizer": optimizer is not None,
            },
        )
    except BaseException:
        task.close()
        raise
    # The data before the cluster, unless it lies there: an error in it should not have to wait for processes to start.
    data = task.data(settings.uses)
    try:
        found, own = find_client(client, (range_of(workers) or (workers,))[0])
        run = launch(settings, data, found, own, workers)
    except BaseException:
        data.close()
        raise
    run.when_over(data.close)
    run.follow(told)
    return run


@named_settings((*signature(start).parameters, "progress"))
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
    workers : int, (least, most), list of addresses or names, or None
        One rank a worker; None for all. With a range such as ``(2, 8)`` the run starts with as many as there are in between, goes on
        with fewer when one is lost, down to the least, and takes workers that join, up to the most.
    client : distributed.Client, optional
        Default: the current one, else an embedded cluster that is made once and closed at exit.
    validation : (X, y), (X, y, sample_weight), float or None
        Held-out data of any kind, or the fraction of the rows to hold out (of a Dask collection, within each partition);
        evaluated each epoch, outside the training clock.
    sample_weight : array-like or Dask collection of shape (rows,), optional
        Weights of the rows.
    shards : int, optional
        Into how many parts the data is cut; default the number of ranks, of a range the most. Each batch is a slice of every one of them,
        which ranks share out evenly: so its rows depend on the shards, not on the number of ranks.
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
    callbacks : sequence of Callback
        Who is told of the run while it goes on, in this process: see ``scaleml.callbacks``.
    device : {"auto", "cpu", "cuda"}
        Where ranks compute. ``"auto"`` is a worker's GPU where CuPy is installed and sees one, and the model can use it, else its
        processor; ``"cuda"`` is an error where that is not so. See ``docs/gpu.md``.
    progress : bool, optional
        Whether to show how far it is. Default: in a notebook and in a terminal, but neither in pipes nor in threads, nor where a
        callback does.
    on_worker_lost : {"replace", "shrink", "raise"}
        What happens when a worker is lost in mid-run. ``"replace"``: the others wait, in state ``recovering``, until Dask's nanny has
        started it anew, or another worker is free, and go on with it from the newest recovery point that they kept in memory: the
        run ends with the parameters that it would have had, to the bit. That is so for strategies whose ranks take their steps
        together (`Serial`, `AllReduce`, `LocalSGD`, synchronous `Gossip`, ``ParameterServer("bsp")``). Where ranks keep their own pace
        the others go on as they are: at most the lost rank's updates in flight are lost, which ``summary()`` counts. With
        ``"shrink"`` the others go on at once without it, as fewer, and a server of it beside one of them: ranks that step together on the
        same batches (where gradients are summed the result differs by rounding), others as they are. With ``"raise"`` the run fails.
        See ``docs/guarantees.md``.
    on_nonfinite : {"raise", "skip"}
        What happens when the loss or gradient of a rank's part of a batch is not finite. ``"raise"``: the run ends before the parameters
        are touched, with rank, step and shard. ``"skip"``: these rows are left out, as if they weighed nothing, and the history says so;
        where they are the whole batch, the step is not taken. A hundred such parts of a rank in a row end the run as well.
    detach : bool or str
        Whether the run stays on the cluster when this process ends, under this name, or one that is made (``run.name``);
        `scaleml.attach` finds it again, from anywhere. It is driven by a task on a worker, and needs a cluster that outlives this process.
    checkpoint : str, path or Checkpoint, optional
        A folder, or a url such as ``"s3://bucket/run-1"``, in which the run writes now and then what ``scaleml.resume`` goes on from;
        ``scaleml.checkpoint.Checkpoint(url, every="10 min", keep=3)`` says how often, and how many stay. It is to be empty, and to be
        seen by this process and all workers. See ``docs/guarantees.md``.

    Returns
    -------
    Run
        In state ``finished``; or ``stopped``, after Ctrl-C.

    Raises
    ------
    ValueError, TypeError
        For data or settings that break a rule, at once; ``scaleml.checkpoint.CheckpointError`` for a folder that cannot be used.
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
    if progress is None and CallbackList(settings.get("callbacks", ())).shows_progress:
        progress = False
    with Progress("train", progress) as shown:
        run = start(model, X, y, **settings)
        shown.on_run(run)
        try:
            return run.wait()
        finally:
            told_of(run.history)
