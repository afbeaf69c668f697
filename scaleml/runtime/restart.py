"""The start of ranks from a checkpoint: what each of them goes on from, also where they are more or fewer than wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scaleml.arrays import Array
from scaleml.checkpoint.catalog import Found
from scaleml.checkpoint.errors import CheckpointError
from scaleml.checkpoint.folder import open_folder
from scaleml.checkpoint.manifest import SHARED, Manifest, rank_file
from scaleml.compression.error_feedback import PREFIX
from scaleml.models.buffers import Buffers
from scaleml.runtime.plan import Plan
from scaleml.runtime.recovery_points import rebuilt
from scaleml.runtime.saving import Origin
from scaleml.runtime.train_state import TrainState

__all__ = ["begin_from", "dealt", "origin_of"]


def begin_from(plan: Plan, rank: int) -> Plan:
    """Return the plan of a rank that goes on from the checkpoint which its plan names.

    Raises
    ------
    CheckpointError
        Where its files are no longer what they were when the client looked.
    """
    origin = plan.origin
    assert origin is not None
    folder = open_folder(origin.url)
    try:
        manifest = Manifest.read(folder, origin.name)
    except CheckpointError as error:
        raise CheckpointError(f"this worker does not see what the client sees in {origin.url}: {error}") from error

    def read(name: str) -> TrainState:
        try:
            return TrainState.from_bytes(manifest.content(folder, name))
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{origin.name}/{name} is foreign: it holds no state of a rank ({error})") from error

    shared, ranks = read(SHARED), plan.layout.workers
    mine = 0 if plan.layout.is_server(rank) else rank
    if origin.ranks == ranks:
        state = rebuilt(shared, read(rank_file(mine)))
    else:
        state = dealt([rebuilt(shared, read(rank_file(each))) for each in range(origin.ranks)], mine, ranks)
    slices = [read(name) for name in manifest.files if name.startswith("server-")]
    if slices:
        whole = TrainState.merge(slices)
        state = replace(state, params=whole.params, arrays=whole.arrays, updates=whole.updates)
    if not plan.strategy.synchronous:
        state.committed = True
    faults = tuple(fault for fault in plan.faults if fault.rank == rank)
    state = replace(state, faults=faults, commands=origin.commands)
    assert state.optimizer is not None and state.batch_size is not None
    if state.consumed < plan.rows * plan.epochs:
        state.stopping.converged = False  # told to train on
    return replace(
        plan,
        evaluated=origin.evaluations,
        start=state,
        began=plan.began if plan.taken else state.consumed,
        resumed=True,
        recovered=True,
        clock=state.clock if plan.clock is None else plan.clock,
        optimizer=state.optimizer,
        batch_size=state.batch_size,
        faults=plan.faults,
    )


def dealt(states: Sequence[TrainState], rank: int, ranks: int) -> TrainState:
    """Return what one of `ranks` ranks goes on from, given the states of as many others as there were.

    As where another strategy takes over: what was private is averaged, but for what a codec has not sent, which is lost.

    Examples
    --------
    >>> two = [TrainState(np.array([value]), committed=False, samples=5) for value in (1.0, 2.0)]
    >>> state = dealt(two, 0, 3)
    >>> state.params, state.committed, state.samples
    (array([1.5]), True, 4)
    """
    first = states[0]
    private = first.private
    arrays = dict(first.arrays)
    for name in [name for name in arrays if name in private]:
        if name.startswith(PREFIX):
            del arrays[name]
        elif name != "schedule":
            arrays[name] = _mean([state.arrays[name] for state in states])
    buffers = [state.buffers for state in states if state.buffers is not None]
    samples, epochs = sum(state.samples for state in states), 1.0
    loss, weight = first.epoch_loss, first.epoch_weight
    if not first.replicated:
        epochs = 1.0 / ranks
        loss, weight = sum(state.epoch_loss for state in states), sum(state.epoch_weight for state in states)
    return replace(
        first,
        params=_mean([state.params for state in states]) if "params" in private else first.params,
        arrays=arrays,
        buffers=Buffers.mean([one.values for one in buffers], [one.counts for one in buffers]) if buffers else None,
        samples=samples // ranks + (rank < samples % ranks),
        epoch_loss=loss * epochs,
        epoch_weight=weight * epochs,
        committed=True,
    )


def _mean(arrays: Sequence[Array]) -> Array:
    total = np.array(arrays[0])
    for array in arrays[1:]:
        total += array
    total /= len(arrays)
    return total


def origin_of(found: Found, commands: int = 0) -> Origin:
    """Return what ranks are told of a checkpoint that they begin from."""
    about = found.manifest.about
    prints = {shard: digest for note in about["ranks"] for shard, digest in note["fingerprints"].items()}
    seen = tuple(tuple(map(float, one)) for one in about["evaluations"])
    return Origin(
        found.folder.url,
        found.manifest.name,
        about["step"],
        about["workers"],
        about["clock"],
        prints,
        seen,
        commands,
    )
