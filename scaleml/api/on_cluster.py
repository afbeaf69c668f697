"""Training on a cluster from start to end, for data that is checked already: what estimators call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Final, Required, TypedDict, Unpack

from distributed import Client

from scaleml.api.launch import launch
from scaleml.api.run import Run
from scaleml.api.settings import Settings
from scaleml.api.validation import check_workers
from scaleml.api.watchers import Epoch, Watchers, tell_all
from scaleml.arrays import Array
from scaleml.callbacks.followers import CallbackList
from scaleml.cluster.current_client import check_client
from scaleml.cluster.embedded import find_client
from scaleml.cluster.errors import RunFailed
from scaleml.cluster.placement import Workers
from scaleml.cluster.secede import seceded
from scaleml.cluster.staging.training_data import TrainingData
from scaleml.data.collection_source import CollectionSource
from scaleml.data.source import ArraySource
from scaleml.models import Model
from scaleml.optim import Optimizer, RowSteps
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.train_state import TrainState
from scaleml.strategies import Strategy

_POLL: Final = 0.1
"""Seconds between two looks at a run that is followed."""


class FitSettings(TypedDict, total=False):
    """Settings that a fit gives; see ``Settings``."""

    strategy: Required[Strategy]
    optimizer: Required[Optimizer]
    epochs: int
    batch_size: int
    seed: int
    stop: StopRule | None
    begin: TrainState | None
    steps: Callable[[int], RowSteps] | None
    by_rows: bool


@seceded()
def train_there(
    model: Model,
    inputs: ArraySource | CollectionSource,
    held_out: ArraySource | None,
    *,
    workers: Workers,
    client: Client | None,
    watchers: Watchers,
    **settings: Unpack[FitSettings],
) -> Outcome:
    """Train on a cluster and return how it ended.

    Parameters
    ----------
    model : Model
    inputs, held_out : ArraySource or CollectionSource
        The data; ``held_out`` may be None.
    workers, client
        As for ``train``.
    watchers : Watchers
        Whom to tell of it.
    **settings
        Of ``Settings``.

    Raises
    ------
    RunFailed
        When the run fails.
    KeyboardInterrupt
        After Ctrl-C; the ranks have ended.
    """
    chosen = Settings(model=model, keep_end=True, snapshots=watchers.snapshots, **settings)
    callbacks = CallbackList(watchers.callbacks)
    check_client(client)
    check_workers(workers)
    data = TrainingData(model, inputs, None, None, held_out, chosen.seed, client, workers, chosen.uses)
    try:
        found, own = find_client(client, workers)
        run = launch(chosen, data, found, own, workers)
        run.follow(callbacks)
        enough = _follow(run, watchers)
    finally:
        data.close()
    if run.interrupted and run.state == "stopped" and not enough:  # else somebody had enough, or a callback stopped it
        raise KeyboardInterrupt
    if run.outcome is None:
        raise RunFailed("the run is over, but no rank could hand over its parameters: its workers are gone; fit again")
    return run.outcome


def _follow(run: Run, watchers: Watchers) -> bool:
    """Wait for the end and tell of epochs as they arrive; True if somebody had enough of them."""
    if watchers.is_idle:
        run.wait()
        return False
    told, enough = 0, False
    try:
        while True:
            over = run.over  # before the epochs: what is over has written all of them
            epochs = run.history.epochs
            for number, loss, score, is_last in list(zip(*epochs.values(), strict=True))[told:]:
                told += 1
                epoch = Epoch(int(number), float(loss), float(score), bool(is_last), partial(_params, run))
                if not enough and tell_all(epoch, watchers.on_epoch):
                    enough = True
                    if not run.over:
                        run.stop()
            if watchers.on_poll is not None:
                watchers.on_poll(run)
            if over:
                run.wait()
                return enough
            with contextlib.suppress(TimeoutError):
                run.wait(_POLL)
    except BaseException:
        if not run.over:
            run.stop()
        raise


def _params(run: Run) -> Array:
    """Return the newest parameters of a run: what rank 0 has kept, or, once it is over, the last."""
    params = None if run.over else run.peek()
    if params is None:
        params = run.wait().params
    assert params is not None, "a run that told of an epoch has parameters"
    return params
