"""Contenders of a comparison: every strategy with settings that give it an equal chance, and the baselines it has to beat.

Settings are those of one update on ``batch_size`` rows. Where a strategy updates on fewer rows, as on a server that takes every rank's
gradient by itself, its rate is scaled to them, and a serial run with those rows and that rate stands beside it: what a smaller batch
gains is not what parallelism gains. Ranks that average step on fewer rows, too, but their mean moves as by one update of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import final

from distributed import Client

from scaleml.api.settings import Settings
from scaleml.api.trial import Trial
from scaleml.cluster import calls
from scaleml.cluster.host_facts import hosts_of
from scaleml.cluster.placement import Workers, candidates
from scaleml.faults import Fault
from scaleml.optim import SGD, Optimizer
from scaleml.strategies import Serial


@final
@dataclass(frozen=True)
class Contender:
    """What is run once in every round.

    Parameters
    ----------
    settings : Settings
        Those of its runs, but for the seed.
    workers : int, list of addresses or names, or None
        Where.
    has_own_optimizer : bool
        Whether its rate is the user's choice, which nothing scales.
    may_be_cut : bool
        Whether it was added only as another baseline, and goes when it cannot win.
    """

    settings: Settings
    workers: Workers
    has_own_optimizer: bool = False
    may_be_cut: bool = False

    @property
    def label(self) -> str:
        """How the comparison calls it."""
        return self.settings.label

    @property
    def is_serial(self) -> bool:
        """Whether it is a baseline."""
        return isinstance(self.settings.strategy, Serial)


def contender_of(trial: Trial, usual: Settings, workers: Workers, faults: Sequence[Fault]) -> Contender:
    """Return a trial with the comparison's settings where it has none of its own."""
    settings = replace(
        usual,
        strategy=trial.strategy,
        optimizer=usual.optimizer if trial.optimizer is None else trial.optimizer,
        steps=usual.steps if trial.optimizer is None else None,
        epochs=usual.epochs if trial.epochs is None else trial.epochs,
        batch_size=usual.batch_size if trial.batch_size is None else trial.batch_size,
        label=trial.label,
        faults=concerning(trial.strategy, faults),
    )
    return Contender(settings, workers if trial.workers is None else trial.workers, trial.optimizer is not None)


def concerning(strategy: object, faults: Sequence[Fault]) -> Sequence[Fault]:
    """Leave out faults of ranks and links that the strategy never has: the baseline has no rank 1 to slow."""
    if not isinstance(strategy, Serial) or not isinstance(faults, Sequence):
        return faults
    return tuple(fault for fault in faults if getattr(fault, "rank", 0) == 0 and getattr(fault, "to", None) is None)


def scaled(optimizer: Optimizer, part: float) -> Optimizer:
    """Return the optimizer for updates on ``part`` of the rows: SGD's rate linearly, that of adaptive ones by the square root.

    A schedule that takes no rate stays as it is.

    References
    ----------
    Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017; Malladi et al., On the SDEs and scaling rules
    for adaptive gradient algorithms, 2022.

    Examples
    --------
    >>> from scaleml.optim import SGD, Adam
    >>> scaled(SGD(0.2), 0.5).learning_rate, scaled(Adam(0.004), 0.25).learning_rate
    (0.1, 0.002)
    """
    if optimizer.schedule == "optimal":
        return optimizer
    return optimizer.with_rate(optimizer.learning_rate * (part if isinstance(optimizer, SGD) else sqrt(part)))


def with_equal_chances(
    contenders: Sequence[Contender], workers_of: Callable[[Contender], int], rows: int
) -> list[Contender]:
    """Scale the rates of those that update on fewer rows, and add a serial run with the settings of each that has none.

    Parameters
    ----------
    contenders : sequence of Contender
    workers_of : callable
        How many ranks of a contender train.
    rows : int
        Of the training data: no batch is larger.
    """
    found: list[Contender] = []
    for one in contenders:
        updates = one.settings.strategy.parts_of_a_batch(workers_of(one))
        # An estimator's own steps know the rows of an update themselves.
        own = one.has_own_optimizer or updates == 1 or one.settings.steps is not None
        optimizer = one.settings.optimizer if own else scaled(one.settings.optimizer, 1 / updates)
        found.append(replace(one, settings=replace(one.settings, optimizer=optimizer)))
    if not any(one.is_serial for one in found):
        return found
    twins: list[Contender] = []
    for one in found:
        if not one.is_serial and not any(_same(one, other, workers_of, rows) for other in [*found, *twins]):
            twins.append(_twin(one, workers_of, rows))
    last = max(i for i, one in enumerate(found) if one.is_serial)
    return [*found[: last + 1], *twins, *found[last + 1 :]]


def _update_rows(one: Contender, workers: int, rows: int) -> int:
    return max(1, min(one.settings.batch_size, rows) // one.settings.strategy.parts_of_a_batch(workers))


def _same(one: Contender, other: Contender, workers_of: Callable[[Contender], int], rows: int) -> bool:
    """Whether the other is the baseline with the same settings of an update."""
    return (
        other.is_serial
        and other.settings.optimizer == one.settings.optimizer
        and _update_rows(other, 1, rows) == _update_rows(one, workers_of(one), rows)
    )


def _twin(one: Contender, workers_of: Callable[[Contender], int], rows: int) -> Contender:
    batch = _update_rows(one, workers_of(one), rows)
    label = Trial(Serial(), optimizer=one.settings.optimizer, batch_size=batch).label
    faults = concerning(Serial(), one.settings.faults)
    return Contender(
        replace(one.settings, strategy=Serial(), batch_size=batch, label=label, faults=faults), one.workers, True
    )


def with_all_cores(contenders: Sequence[Contender], client: Client) -> list[Contender]:
    """Follow every ``Serial()`` by the same in one process with all the cores of its host, if that has more than one."""
    info = calls.identity(client)
    serial = [one for one in contenders if one.settings.strategy == Serial()]
    used = list(dict.fromkeys(address for one in serial for address in candidates(info, one.workers, embedded=False)))
    cores = max((facts["cores"] for facts in hosts_of(client, used, info).values()), default=1)
    threads = min((int(facts["nthreads"]) for facts in info.values()), default=1)
    if cores <= threads:
        return list(contenders)
    whole = Serial(threads=cores)
    found: list[Contender] = []
    for one in contenders:
        found.append(one)
        if one.settings.strategy == Serial():
            label = one.label.replace(repr(Serial()), repr(whole), 1)
            found.append(replace(one, settings=replace(one.settings, strategy=whole, label=label), may_be_cut=True))
    return found
