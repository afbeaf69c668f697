"""``resume``: from a checkpoint to a run that goes on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed import Client

from scaleml.api.checkpointed_run import CheckpointedRun
from scaleml.api.checkpoints import check_here, told_of
from scaleml.api.launch import launch
from scaleml.api.named_settings import named_settings
from scaleml.api.run import Run
from scaleml.api.trainable import EstimatorLike, Given, PipelineLike, trainable
from scaleml.api.validation import check_workers
from scaleml.callbacks.base import Callback
from scaleml.callbacks.followers import CallbackList
from scaleml.checkpoint import Checkpoint, CheckpointError
from scaleml.checkpoint.catalog import newest
from scaleml.checkpoint.settings import absolute, as_checkpoint
from scaleml.cluster.current_client import check_client
from scaleml.cluster.embedded import find_client
from scaleml.cluster.errors import RunFailed
from scaleml.cluster.placement import Workers
from scaleml.cluster.secede import seceded
from scaleml.data.fingerprint import OTHER_ROWS
from scaleml.models import Model
from scaleml.telemetry.progress import Progress


@named_settings()
@seceded()
def resume(
    url: str | os.PathLike[str],
    model: Model | EstimatorLike | PipelineLike | None = None,
    X: object = None,
    y: object = None,
    *,
    validation: object = None,
    sample_weight: object = None,
    workers: Workers = None,
    client: Client | None = None,
    callbacks: Sequence[Callback] = (),
    epochs: int | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | bool | None = True,
    device: str = "auto",
    progress: bool | None = None,
    on_worker_lost: str = "replace",
) -> Run:
    """Go on with a run from its newest good checkpoint, in any process, on any cluster, and wait for the end.

    What the run was stands in the checkpoint: strategy, optimizer, batch, seed, shards, epochs, how far it had come. The data are
    given again, as they were; what they are is compared with what the checkpoint knows of them.

    Parameters
    ----------
    url : str or path
        What ``checkpoint=`` of the run was; or one of the checkpoints in it, of which then nothing else is tried. Torn and altered
        ones are refused by name, with a warning, and the one before them is used.
    model : Model, estimator or Pipeline, optional
        As it was. ``LinearModel`` and ``MLP`` are made again from the checkpoint; others, such as ``TorchModel``, and estimators have
        to be given, and are compared with what the checkpoint knows of them.
    X, y, sample_weight
        As they were, with their rows in the same order.
    validation
        As it was; a fraction is known and need not be given.
    workers, client
        As for ``train``. By default as many workers as there were, or all where the cluster has fewer.
    callbacks, device, progress, on_worker_lost
        As for ``train``.
    epochs : int, optional
        How many in all, those before included; by default as many as the run was to have. A run that had them all trains on if
        there are more.
    checkpoint : bool, str, path or Checkpoint
        Where to write further ones: True goes on in the same folder as before, None or False writes none.

    Returns
    -------
    Run
        Its history begins with the evaluations before; its marks say from where it went on. Steps, samples, epochs and the
        training clock are counted on.

    Raises
    ------
    CheckpointError
        A ``ValueError``: for a folder without a good checkpoint, data or a model that are not those of the run, a run that is over.
    RunFailed
        As for ``train``.

    Notes
    -----
    **The same bits.** With as many workers, strategies whose ranks step together (``Serial``, ``AllReduce``, ``LocalSGD``,
    synchronous ``Gossip``) end with the parameters that the run would have had. With more or fewer workers ``Serial`` and
    ``AllReduce`` come to them to rounding: batches follow from the shards, which stay as they were, so no more workers can take part
    than there are shards (``shards=`` of ``train``). What each rank has for itself is averaged then, and what codecs have not
    sent is lost. Ranks with a pace of their own go on from what they had in common. Faults are not injected again.

    Examples
    --------
    >>> import scaleml
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> run = scaleml.train(scaleml.LinearModel(), X / 16, y, epochs=5, checkpoint="digits")  # doctest: +SKIP
    >>> run = scaleml.resume("digits", X=X / 16, y=y, epochs=10)  # doctest: +SKIP
    >>> run.history.marks[0][1]  # doctest: +SKIP
    'resumed from step 40 of .../digits'
    """
    told = CallbackList(callbacks)
    check_client(client)
    check_workers(workers)
    before = CheckpointedRun(newest(absolute(url)))
    before.refuse_nothing_to_do(epochs)
    if before.found.refused:
        refused = "; ".join(before.found.refused)
        warnings.warn(f"{refused}: going on from {before.found.manifest.name} instead", stacklevel=4)
    chosen = before.model(model, X)
    if checkpoint is True and absolute(url) != before.found.folder.url:
        before.refuse_newer_ones()
    saves = before.checkpoint() if checkpoint is True else as_checkpoint(checkpoint or None)
    check_here(saves, before.found.folder.url)
    shown_by = False if progress is None and told.shows_progress else progress
    with Progress("resume", shown_by) as shown:
        workers = before.workers(workers, client)
        given = before.given(X, y, sample_weight, validation, epochs, client, workers)
        run = _started(before, chosen, given, saves, device, on_worker_lost)
        run.follow(told)
        shown.on_run(run)
        try:
            return run.wait()
        except RunFailed as error:
            if OTHER_ROWS in str(error):
                raise CheckpointError(f"{before.where}: {error}") from error
            raise
        finally:
            told_of(run.history)


def begin_again(start: Callable[..., Run], arguments: Mapping[str, Any], client: Client) -> Run:
    """Start a run once more whose process was lost: from its newest checkpoint, where it has one, else from its seed.

    Parameters
    ----------
    start : callable
        ``scaleml.start``.
    arguments : mapping
        Of its first call.
    client : Client
    """
    saves = as_checkpoint(arguments.get("checkpoint"))
    try:
        before = None if saves is None else CheckpointedRun(newest(saves.place))
    except CheckpointError:
        before = None  # it was lost before the first was there
    if before is None:
        return start(**arguments, client=client)
    if before.about["over"]:  # its result was lost with the process
        return start(**{**arguments, "checkpoint": None}, client=client)
    had = {name: arguments.get(name) for name in ("X", "y", "sample_weight", "validation", "epochs", "workers")}
    device, on_worker_lost = arguments.get("device", "auto"), arguments.get("on_worker_lost", "replace")
    return _started(before, arguments["model"], before.given(**had, client=client), saves, device, on_worker_lost)


def _started(
    before: CheckpointedRun,
    model: object,
    given: Given,
    checkpoint: Checkpoint | None,
    device: str,
    on_worker_lost: str,
) -> Run:
    """Start the run; the order is that of ``start``: data first."""
    about = before.about
    task = trainable(model, given)
    own_steps = task.fitted is not None and not about["given"]["has_optimizer"]  # an estimator's
    try:
        settings = task.settings(
            strategy=before.strategy,
            optimizer=None if own_steps else before.optimizer,
            epochs=given.epochs,
            batch_size=given.batch_size if task.fitted is not None else about["batch_size"],
            shards=about["shards"],
            scoring=about["scoring"],
            microbatch=about["microbatch"],
            label=about["label"],
            device=device,
            on_worker_lost=on_worker_lost,
            on_nonfinite=about["on_nonfinite"],
            checkpoint=checkpoint,
            origin=before.origin,
            given=about["given"],
        )
    except BaseException:
        task.close()
        raise
    data = task.data(settings.uses)
    try:
        before.refuse_other_data(data)
        found, own = find_client(task.given.client, task.given.workers)
        run = launch(settings, data, found, own, task.given.workers, before.refuse_other_parameters)
    except BaseException:
        data.close()
        raise
    run.when_over(data.close)
    run.history.mark(before.origin.clock, before.words, before.origin.step, "checkpoint")
    return run
