"""Comparison of strategies: one after another, on the same data, seed and cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, NamedTuple, final

from distributed import Client

from scaleml.api.run import Run
from scaleml.api.settings import Settings, check_target
from scaleml.api.train import launch, prepare
from scaleml.api.validation import check_workers
from scaleml.cluster import calls
from scaleml.cluster.embedded import check_client, find_client
from scaleml.cluster.errors import RunFailed, StartFailed
from scaleml.cluster.host_facts import hosts_of
from scaleml.cluster.placement import Workers
from scaleml.cluster.secede import seceded
from scaleml.cluster.staging.training_data import TrainingData
from scaleml.faults import Fault
from scaleml.models import Model
from scaleml.optim import SGD, Optimizer
from scaleml.strategies import Serial, Strategy
from scaleml.telemetry import Comparison
from scaleml.telemetry.formatting import listing

_REPLACEMENT: Final = 30.0
"""Seconds to wait for a lost worker's replacement."""


@final
@dataclass(frozen=True)
class Trial:
    """A strategy with settings of its own: one learning rate for all would be unfair to some.

    Parameters
    ----------
    strategy : Strategy
        What to try.
    optimizer : Optimizer, optional
        Instead of the comparison's.
    batch_size, epochs, workers : optional
        Instead of the comparison's.

    Examples
    --------
    >>> from scaleml import LocalSGD, SGD, Trial
    >>> Trial(LocalSGD(8), optimizer=SGD(0.2)).label
    'LocalSGD(period=8), SGD(0.2)'
    """

    strategy: Strategy
    optimizer: Optimizer | None = None
    batch_size: int | None = None
    epochs: int | None = None
    workers: Workers = None

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, Strategy):
            raise TypeError(
                f"{self.strategy!r} is no strategy: pass objects such as Serial(), AllReduce() or LocalSGD(8), or Trial(strategy, ...)"
            )

    @property
    def label(self) -> str:
        """How the comparison calls it."""
        own = [
            _short(getattr(self, field.name), field.name)
            for field in fields(self)[1:]
            if getattr(self, field.name) is not None
        ]
        return ", ".join([repr(self.strategy), *own])


def _short(value: object, name: str) -> str:
    if isinstance(value, SGD) and value == SGD(value.learning_rate):
        return f"SGD({value.learning_rate:g})"
    return repr(value) if isinstance(value, Optimizer) else f"{name}={value!r}"


class _Planned(NamedTuple):
    """A run to come."""

    settings: Settings
    workers: Workers


@seceded()
def compare(
    model: Model,
    X: object,
    y: object,
    strategies: Sequence[Strategy | Trial],
    *,
    target: float | None = None,
    optimizer: Optimizer | None = None,
    epochs: int = 5,
    batch_size: int = 256,
    workers: Workers = None,
    client: Client | None = None,
    validation: object = 0.2,
    sample_weight: object = None,
    seed: int = 0,
    faults: Sequence[Fault] | None = None,
    on_plan: Callable[[Sequence[str]], None] | None = None,
    on_run: Callable[[Run, int], None] | None = None,
) -> Comparison:
    """Run strategies one after another on the same data, seed and cluster, and say which one to use.

    Where ``Serial()`` is among them it runs twice: on one worker, and as one process with all the cores of one host. The
    better of the two is what scaling has to beat.

    Parameters
    ----------
    model, X, y, optimizer, epochs, batch_size, workers, client, sample_weight, seed, faults
        As for ``train``; faults of other ranks than 0 leave ``Serial()`` alone.
    strategies : sequence of Strategy or Trial
        What to compare; a ``Trial`` gives a strategy its own settings.
    target : float, optional
        The held-out loss that counts. Default: the loss that all strategies reached.
    validation : (X, y) or float
        The held-out data, evaluated outside the training clock; default a fifth of the rows.
    on_plan : callable, optional
        Called once, before the first run, with the labels of all runs to come.
    on_run : callable, optional
        Called with each run as it starts and the rows it will train on, for a live display.

    Returns
    -------
    Comparison
        ``runs``, ``table()``, ``verdict``, ``plot()``, ``to_html(path)``. A run that failed stands in it with its error. After
        Ctrl-C it holds the runs so far; a run that is stopped ends the comparison, too, unless it had reached the target.
        ``ended`` says why runs are missing.

    Examples
    --------
    >>> import scaleml
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> scaleml.compare(scaleml.LinearModel(), X / 16, y, [scaleml.Serial(), scaleml.AllReduce()]).verdict  # doctest: +SKIP
    """
    trials = _trials(strategies)
    check_target(target)
    usual = SGD(0.1) if optimizer is None else optimizer
    # All settings are checked before the first run: nobody should wait for an error in the last.
    planned = [
        _Planned(
            _evaluated_often(
                Settings(
                    model=model,
                    strategy=trial.strategy,
                    optimizer=usual if trial.optimizer is None else trial.optimizer,
                    epochs=epochs if trial.epochs is None else trial.epochs,
                    batch_size=batch_size if trial.batch_size is None else trial.batch_size,
                    seed=seed,
                    label=trial.label,
                    faults=_concerning(trial.strategy, faults),
                )
            ),
            workers if trial.workers is None else trial.workers,
        )
        for trial in trials
    ]
    check_client(client)
    for _, count in planned:
        check_workers(count)
    most = max((count for _, count in planned if isinstance(count, int)), default=None)
    wanted = workers if most is None else most
    data = TrainingData(model, X, y, sample_weight, validation, seed, client, wanted)
    runs: list[Run] = []
    ended: str | None = None
    try:
        found, own = find_client(client, wanted)
        planned = [run for each in planned for run in _with_baseline(each, found)]
        for settings, count in planned:
            prepare(settings, data, found, own, count)
        if on_plan is not None:
            on_plan([settings.label for settings, _ in planned])
        ended = _run_all(planned, data, found, own, on_run, runs, target)
    except KeyboardInterrupt:
        if not runs:
            raise
    finally:
        # Whatever ended the comparison also ends the run that was under way.
        if runs and not runs[-1].over:
            runs[-1].stop()
        data.close()
    return Comparison(runs, target, ended)


def _run_all(
    planned: Sequence[_Planned],
    data: TrainingData,
    client: Client,
    own_cluster: bool,
    on_run: Callable[[Run, int], None] | None,
    runs: list[Run],
    target: float | None,
) -> str | None:
    """Run one after another, each noted in ``runs`` as it starts; end early when one was stopped short of the target.

    Where a run cannot start, what has finished is not thrown away because the cluster is no longer what it was. Why not all have
    run is returned.
    """
    enough = len(calls.identity(client))
    for position, (settings, workers) in enumerate(planned):
        try:
            run = launch(settings, data, client, own_cluster, workers)
        except (StartFailed, ValueError, OSError) as error:
            if not runs:
                raise
            return f"The comparison ended before {settings.label}: {error}"
        runs.append(run)
        if on_run is not None:
            on_run(run, settings.epochs * data.rows)
        try:
            if run.wait().state == "stopped" and not _has_reached(run, target):
                left = [later.label for later, _ in planned[position + 1 :]]
                return f"The comparison was stopped before {listing(left)}." if left else None
        except RunFailed:
            # It stands in the comparison with its error. If it lost a worker, the others wait for its replacement.
            with contextlib.suppress(TimeoutError):
                client.wait_for_workers(enough, timeout=_REPLACEMENT)
    return None


def _has_reached(run: Run, target: float | None) -> bool:
    return target is not None and bool((run.history.evaluations["loss"] <= target).any())


def _concerning(strategy: Strategy, faults: Sequence[Fault] | None) -> Sequence[Fault]:
    """Leave out faults of ranks and links that the strategy never has: the baseline has no rank 1 to slow."""
    if not isinstance(strategy, Serial) or not isinstance(faults, Sequence):
        return () if faults is None else faults
    return tuple(fault for fault in faults if getattr(fault, "rank", 0) == 0 and getattr(fault, "to", None) is None)


def _evaluated_often(settings: Settings) -> Settings:
    """Evaluate about twenty times a run: a time to the target needs that."""
    return replace(settings, evaluations_an_epoch=-(-20 // settings.epochs))


def _trials(strategies: Sequence[Strategy | Trial]) -> list[Trial]:
    if isinstance(strategies, Strategy | Trial | str) or not isinstance(strategies, Sequence):
        raise TypeError(f"strategies={strategies!r}: must be a list such as [Serial(), AllReduce()]")
    if not strategies:
        raise ValueError("strategies=[]: at least one is needed, such as [Serial(), AllReduce()]")
    return [strategy if isinstance(strategy, Trial) else Trial(strategy) for strategy in strategies]


def _with_baseline(planned: _Planned, client: Client) -> list[_Planned]:
    """Follow ``Serial()`` by the same in one process with all the cores of its host, if that has more than one."""
    settings, workers = planned
    if settings.strategy != Serial():
        return [planned]
    info = calls.identity(client)
    cores = max((facts["cores"] for facts in hosts_of(client, list(info)).values()), default=1)
    threads = min((int(facts["nthreads"]) for facts in info.values()), default=1)
    if cores <= threads:
        return [planned]
    whole = Serial(threads=cores)
    label = settings.label.replace(repr(Serial()), repr(whole))
    return [planned, _Planned(replace(settings, strategy=whole, label=label), workers)]
