"""One way to run a strategy on threads (no Dask, no processes) and on Dask workers: same arguments, same result."""

from __future__ import annotations

import copy
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from typing import Any

import numpy as np

import scaleml
from scaleml.comm import inprocess
from scaleml.comm.simulated import Costs
from scaleml.comm.simulated import run as run_simulated
from scaleml.data.batches import Batches, Schedule
from scaleml.data.piece import Arrays
from scaleml.data.source import ArraySource, array_source
from scaleml.data.split import hold_out
from scaleml.models import Signature
from scaleml.models.flat_model import Sparse
from scaleml.optim import SGD
from scaleml.runtime.commands import Command, CommandQueue
from scaleml.runtime.coordinator import AsynchronousCoordinator
from scaleml.runtime.outcome import Outcome, Recovered, recover_from, resume_from
from scaleml.runtime.parameter_server.server_loop import ServerLoop
from scaleml.runtime.plan import Plan
from scaleml.runtime.rank_change import Bequest, RankChange, follow_change
from scaleml.runtime.restart import begin_from
from scaleml.runtime.shared_memory import SharedMemoryCoordinator
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.train_state import TrainState
from scaleml.runtime.training_loop import TrainingLoop
from scaleml.telemetry import History
from scaleml.telemetry.recorder import Recorder

Hook = Callable[[int, int, CommandQueue], None]
"""``hook(rank, step, command_queue)``: called by each rank that trains with each of its gradients; 0 is the warm-up's."""


@dataclass
class Result:
    """What is compared: the parameters (of rank 0, and of all ranks where they can be seen), and what was recorded."""

    params: Any
    history: History
    state: str
    applied: dict[int, dict[int, int]]
    """Command number -> rank -> steps before it took effect."""
    outcomes: list[Outcome] = field(default_factory=list)
    run: Any = None
    """Of workers, the run."""


def on_threads(
    model: Any,
    X: Any,
    y: Any,
    *,
    strategy: Any,
    workers: int = 2,
    optimizer: Any = None,
    epochs: int = 2,
    batch_size: int = 32,
    shards: int | None = None,
    seed: int = 0,
    sample_weight: Any = None,
    validation: Any = None,
    faults: Sequence[Any] = (),
    shared_memory: bool = True,
    hook: Hook | None = None,
    commands: Sequence[tuple[int, Command]] = (),
    before: Sequence[Outcome] = (),
    simulated: bool | Costs = False,
    prepare: Callable[[TrainingLoop | ServerLoop], None] | None = None,
    stop: StopRule | None = None,
    start: Any = None,
    recovered: Sequence[tuple[Recovered, Outcome | None]] = (),
    change: RankChange | None = None,
    **planned: Any,
) -> Result:
    """Run the loops of all ranks on threads of this process.

    Parameters
    ----------
    commands : sequence of (steps, Command)
        Arrives at rank 0 during the last of so many steps.
    before : sequence of Outcome
        Of the ranks that have handed over to these.
    simulated : bool or Costs
        Whether one rank runs at a time, in simulated time (where talking takes what the costs say): then asynchronous runs
        are the same every time, too.
    prepare : callable, optional
        Called with each rank's loop before it runs.
    start : (P,) array or TrainState, optional
        Parameters to start from, or more than these.
    recovered : sequence of (Recovered, Outcome)
        What each rank is told that goes on after a loss.
    change : RankChange, optional
        Who goes on as which rank.
    **planned
        More of the plan.
    """
    inputs = array_source(X, y, sample_weight, classifier=model.is_classifier)
    rows = hold_out(inputs.rows, 0.0, seed)[0]
    signature = Signature(
        n_features=inputs.x.shape[1],
        n_outputs=inputs.n_outputs,
        task=inputs.task,  # type: ignore[arg-type]
        dtype=model.dtype,
        sparse=hasattr(inputs.x, "indptr"),
    )
    layout = strategy.layout(workers)
    cuts_of_data = shards or layout.workers
    bounds = [len(rows) * s // cuts_of_data for s in range(cuts_of_data + 1)]
    plan = Plan(
        model=model.build(signature),
        strategy=strategy,
        optimizer=SGD(0.1) if optimizer is None else optimizer,
        layout=layout,
        shard_sizes=tuple(b - a for a, b in pairwise(bounds)),
        epochs=epochs,
        batch_size=min(batch_size, len(rows)),
        seed=seed,
        dtype=model.dtype,
        evaluate_every=planned.pop("evaluate_every", len(rows) if validation else 0),
        faults=tuple(faults),
        stop=stop,
        start=start if start is None or isinstance(start, TrainState) else TrainState(np.array(start)),
        **planned,
    )
    data = [_rows_of(inputs, rows[a:b], model.dtype) for a, b in pairwise(bounds)]
    held_out = _held_out(model, validation, inputs.classes, layout.workers)
    command_queue = CommandQueue()
    history = History()
    applied: dict[int, dict[int, int]] = {}
    lock = threading.Lock()

    def report(rank: int) -> Callable[..., None]:
        return partial(_note, rank, applied, history)

    def after_gradient(rank: int, step: int) -> None:
        if rank == 0:
            for at, command in commands:
                if at == step:
                    command_queue.put(command)
        if hook is not None:
            hook(rank, step, command_queue)

    def rank_main(group: Any) -> Outcome:
        network = copy.copy(plan.model)  # networks keep scratch arrays: one a thread
        _hook(network, partial(after_gradient, group.rank))
        training = not layout.is_server(group.rank)
        own = dataclasses.replace(plan, model=network, steps=copy.copy(plan.steps))
        own, bequest = _going_on(own, group.rank, before, recovered, change)
        recorder = Recorder(group.rank, group.meter)
        loop: TrainingLoop | ServerLoop
        if not training:
            loop = ServerLoop(own, group, report(group.rank), recorder)
        else:
            parts = own.owned(group.rank)
            batches = Batches(Schedule(own.shard_sizes), parts, [data[part.shard] for part in parts])
            held = held_out[group.rank] if held_out else None
            loop = TrainingLoop(own, group, batches, held, command_queue, report(group.rank), recorder, bequest)
        if prepare is not None:
            prepare(loop)
        try:
            return loop.run()
        finally:
            packed, evaluations = recorder.drain()
            with lock:
                history.append_bytes(packed)
                for evaluation in evaluations:
                    history.add_evaluation(*evaluation)

    if simulated:
        costs = simulated if isinstance(simulated, Costs) else None
        outcomes = run_simulated(layout.size, rank_main, costs=costs)
    else:
        outcomes = inprocess.run(layout.size, rank_main, shared_memory=shared_memory)
    return Result(outcomes[0].params, history, outcomes[0].status, applied, outcomes)


def _going_on(
    plan: Plan,
    rank: int,
    before: Sequence[Outcome],
    recovered: Sequence[tuple[Recovered, Outcome | None]],
    change: RankChange | None,
) -> tuple[Plan, Bequest | None]:
    """Return a rank's plan after a hand-over or a loss, if there was one, and what it brings of former ranks."""
    told, left = None, list(before)
    if plan.origin is not None:
        return begin_from(plan, rank), None
    if recovered:
        told, own = recovered[rank]
        left = [] if own is None else [own]
        plan = recover_from(plan, told, own, None if change is None else change.before)
    elif before:
        numbers = range(plan.layout.workers) if change is None else change.former
        was = numbers[rank] if rank < len(numbers) else 0
        left = [before[was or 0], *before[plan.layout.workers if change is None else change.before :]]
        plan = resume_from(plan, left)
    return (plan, None) if change is None else follow_change(plan, change, rank, told, left)


def _note(rank: int, applied: dict[int, dict[int, int]], history: History, kind: str, **facts: Any) -> None:
    if kind == "applied":
        applied.setdefault(facts["number"], {})[rank] = facts["step"]
    elif kind == "mark":
        what, fault = facts.get("what", "setting"), facts.get("fault")
        history.mark(facts["time"], facts["text"], facts["step"], what, rank, fault)


def _held_out(model: Any, validation: Any, classes: Any, workers: int) -> list[Any]:
    if not validation:
        return [None] * workers
    checked = array_source(*validation, classifier=model.is_classifier, classes=classes)
    cuts = [checked.rows * r // workers for r in range(workers + 1)]
    return [_rows_of(checked, range(a, b), model.dtype) for a, b in pairwise(cuts)]


def held_until_told(monkeypatch: Any, strategy: Any) -> Hook:
    """Return a hook that holds the other ranks at their step 3 until rank 0 has announced its first command.

    Only those that nothing else holds: they might have had all rows before rank 0 comes to its command.
    """
    kind = SharedMemoryCoordinator if strategy.shares_memory else AsynchronousCoordinator
    said, announced = threading.Event(), kind.announced
    free = not strategy.synchronous and getattr(strategy, "ahead", math.inf) == math.inf

    def announce(own: Any) -> None:
        announced(own)
        said.set()

    def hook(rank: int, step: int, command_queue: CommandQueue) -> None:
        assert not (free and rank and step == 3) or said.wait(60)

    monkeypatch.setattr(kind, "announced", announce)
    return hook


def _hook(network: Any, told: Callable[[int], None]) -> None:
    """Have every gradient counted, also those of what a batch touches alone."""
    calls = count()

    def hooked(loss_grad: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            result = loss_grad(*arguments, **named)
            told(next(calls))
            return result

        return call

    def narrow(columns: int) -> Any:
        part = narrowed(columns)
        part.loss_grad = hooked(part.loss_grad)
        return part

    network.loss_grad = hooked(network.loss_grad)
    if isinstance(network, Sparse):
        narrowed, network.narrowed = network.narrowed, narrow


def on_workers(model: Any, X: Any, y: Any, **settings: Any) -> Result:
    """Run on the workers of the embedded cluster."""
    run = scaleml.train(model, X, y, **{"epochs": 2, "batch_size": 32, "workers": 2, **settings})
    return result(run)


def result(run: Any) -> Result:
    """Return what a run left."""
    numbers = range(1, run._sender.sent + 1)
    return Result(run.params, run.history, run.state, {n: run._driver.applied_at(n) for n in numbers}, run=run)


def await_condition(condition: Callable[[], Any], seconds: float = 20.0) -> bool:
    """Wait until `condition` holds, or for so many seconds; return whether it does."""
    until, pause = time.monotonic() + seconds, threading.Event()
    while not (holds := bool(condition())) and time.monotonic() < until:
        pause.wait(0.01)
    return holds


def _rows_of(source: ArraySource, rows: Any, dtype: str) -> Arrays:
    """Some rows of checked data, as a shard of them is opened."""
    weights = source.encode_weights(dtype)
    return source.x[rows].astype(dtype), source.encode(dtype)[rows], None if weights is None else weights[rows]
