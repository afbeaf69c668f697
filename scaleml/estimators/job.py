"""Fit job: what is to be trained, in this process or on a cluster."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from scaleml import arrays
from scaleml.api.in_process import batches_of, train_here
from scaleml.api.watchers import Watchers
from scaleml.data.source import ArraySource
from scaleml.estimators.batch_objective import BatchObjective
from scaleml.models import MLP, Model, Network, Signature
from scaleml.optim import Optimizer, RowSteps
from scaleml.runtime.errors import NonFinite
from scaleml.runtime.footprint import Footprint
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.plan import Plan
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.train_state import TrainState
from scaleml.strategies import AllReduce, Layout, Serial, Strategy

HERE: Final = 500_000_000
"""Multiplications an epoch up to which data is trained in this process: about 0.3 s of one core.

Measured with logistic regression on 400,000 dense rows of 200 columns (8e7 multiplications an epoch), two cores: a fit of 8
epochs takes 0.7 s here, 60 ms an epoch; on a cluster that stands 1.9 s, of which 0.6 s go to bringing the data; starting one
takes 2.5 s more.
"""
_MANY: Final = 10_000_000
"""Parameters that any machine holds: below that nobody asks."""


@dataclass(frozen=True)
class Job:
    """What is to be trained.

    Parameters
    ----------
    model : Model
        Its settings.
    inputs, held_out : ArraySource
        Data as sources; ``held_out`` may be None. Or as inputs ``CollectionSource``, with their held-out rows.
    optimizer : Optimizer
    epochs, batch_size, seed : int
    stop : StopRule
    begin : TrainState or None
        Where to go on from.
    steps : callable or None
        Given the rows of an update, what makes steps of gradients.
    shuffle : bool
    by_rows : bool
        Whether gradients are divided by rows, the weights having mean 1.
    random : RandomState, optional
        Decides the order of the rows in this process, instead of ``seed``; then anew each epoch, however many there are.
    alpha : float, optional
        A perceptron's: in this process a part of each batch's sum; see `BatchObjective`.
    """

    model: Model
    inputs: Any
    held_out: ArraySource | None
    optimizer: Optimizer
    epochs: int
    batch_size: int
    seed: int
    stop: StopRule
    begin: TrainState | None = None
    steps: Callable[[int], RowSteps] | None = None
    shuffle: bool = True
    by_rows: bool = False
    random: Any = None
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.optimizer.takes_all_rows:
            raise ValueError(
                f"optimizer={self.optimizer!r}: it steps on all rows, this estimator on batches: use "
                "scaleml.linear_model.LogisticRegression, or scaleml.train(LinearModel(...), X, y, optimizer=LBFGS())"
            )

    @property
    def signature(self) -> Signature:
        """What the network is built for."""
        return signature_of(self.inputs, self.model.dtype)

    @property
    def multiplications(self) -> float:
        """Products of a weight and a value in one pass over the data."""
        size = self.model.build(self.signature).size
        x = self.inputs.x
        if not arrays.is_sparse(x):
            return float(x.shape[0]) * size
        return float(x.nnz) * max(1, round(size / x.shape[1]))


def signature_of(inputs: Any, dtype: str) -> Signature:
    """Return what a network for these data is built for."""
    return Signature(
        n_features=inputs.features,
        n_outputs=inputs.n_outputs,
        task=inputs.task,
        dtype=dtype,
        sparse=inputs.is_sparse,
    )


def choose(job: Job, strategy: Any, client: Any) -> Strategy | None:
    """Return the strategy to train with on a cluster, or None for this process.

    ``"auto"`` is this process for data of up to ``HERE`` multiplications an epoch, and wherever no
    cluster may be started; else, and for Dask collections, ``AllReduce()``.
    """
    staged = not isinstance(job.inputs, ArraySource)
    if strategy != "auto" or staged:
        if not job.shuffle:
            raise ValueError(
                f"shuffle=False with {'a Dask collection' if staged else f'strategy={strategy!r}'}: a cluster trains on shuffled "
                "shards; use strategy='auto' and data that fits this process, or shuffle=True"
            )
        return AllReduce() if strategy == "auto" else strategy
    if not job.shuffle or job.multiplications <= HERE:
        return None
    if client is None and multiprocessing.parent_process() is not None and not has_client():
        return None
    return AllReduce()


def check_fits(network: Network, optimizer: Optimizer, strategy: Any, client: Any, workers: Any) -> None:
    """Raise StartFailed, with figures, for a network that neither this process nor a worker can hold."""
    if network.size < _MANY:
        return
    from scaleml.cluster.staging.memory import check_model

    chosen = Serial() if strategy == "auto" else strategy
    check_model(Footprint.of(network, chosen, optimizer), chosen, client, workers)


def has_client() -> bool:
    """Whether this process has a Dask client."""
    if "distributed" not in sys.modules:
        return False
    from scaleml.cluster.current_client import has_client

    return has_client()


def run(job: Job, strategy: Strategy | None, workers: Any, client: Any, watchers: Watchers) -> Outcome:
    """Train, here (``strategy=None``) or on a cluster.

    Raises
    ------
    ValueError
        When training runs into infinity.
    RunFailed
        When a cluster's run fails.
    """
    if strategy is None:
        return _here(job, watchers)
    from scaleml.api.on_cluster import train_there

    return train_there(
        job.model,
        job.inputs,
        job.held_out,
        strategy=strategy,
        workers=workers,
        client=client,
        watchers=watchers,
        optimizer=job.optimizer,
        epochs=job.epochs,
        batch_size=job.batch_size,
        seed=job.seed,
        stop=job.stop,
        begin=job.begin,
        steps=job.steps,
        by_rows=job.by_rows,
    )


def _here(job: Job, watchers: Watchers) -> Outcome:
    rows, dtype = job.inputs.rows, job.signature.dtype
    batch = min(job.batch_size, rows)
    plan = Plan(
        model=_model_here(job),
        strategy=Serial(),
        optimizer=job.optimizer,
        layout=Layout(1),
        shard_sizes=(rows,),
        epochs=job.epochs,
        batch_size=batch,
        seed=job.seed,
        dtype=dtype,
        evaluate_every=0 if job.held_out is None else rows,
        stop=job.stop,
        start=job.begin,
        steps=None if job.steps is None else job.steps(batch),
        by_rows=job.by_rows,
        keep_end=True,
    )
    held_out = None if job.held_out is None else _arrays(job.held_out, dtype)
    random = np.random.RandomState(job.seed) if job.random is None else job.random
    batches = batches_of(_arrays(job.inputs, dtype), random, job.shuffle, anew=job.random is not None)
    try:
        return train_here(plan, batches, held_out, watchers)
    except NonFinite as error:
        # No ranks here, and no parameters either.
        sizes = job.inputs.sizes
        advice = "" if sizes is None else sizes.advice(job.inputs.names)
        last = f". Look at X first: {advice}" if advice else ""
        raise ValueError(f"training diverged at step {error.step}: {error.what}. {error.remedy}{last}") from None


def _model_here(job: Job) -> Any:
    if job.alpha is None:
        return job.model.build(job.signature)
    assert isinstance(job.model, MLP)
    return BatchObjective(replace(job.model, alpha=0.0).build(job.signature), job.alpha, job.stop.targets)


def _arrays(inputs: ArraySource, dtype: str) -> tuple[Any, Any, Any]:
    x = inputs.x if inputs.x.dtype == np.dtype(dtype) else inputs.x.astype(dtype)
    return x, inputs.encode(dtype), inputs.encode_weights(dtype)
