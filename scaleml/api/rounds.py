"""Rounds of a comparison: a warm-up that does not count, then every contender once a round, in an order that changes.

Runs of one round share a seed, so that times are compared in pairs; what a machine does besides falls on all of them alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final

from distributed import Client

from scaleml.api.contenders import Contender
from scaleml.api.launch import launch
from scaleml.api.run import Run
from scaleml.callbacks.followers import CallbackList
from scaleml.clock import WALL
from scaleml.cluster import calls
from scaleml.cluster.errors import RunFailed, StartFailed
from scaleml.cluster.staging.training_data import TrainingData
from scaleml.telemetry.curves import loss_curve
from scaleml.telemetry.formatting import listing, seconds
from scaleml.telemetry.place import Place, Stage

BUDGET: Final = 60.0
"""Seconds that a comparison may take when nothing is said."""
FEWEST, MOST = 5, 20
"""Rounds: the fewest that a default budget is stretched for, the most that any buys."""
_SHORT: Final = 60.0
"""Seconds of a round for which a default budget is stretched to `FEWEST`."""
_WARM_UP: Final = 3.0
"""Seconds of training after which a run of the warm-up is ended."""
_CANNOT_WIN: Final = 0.7
"""Of the samples a second of one thread: what all cores with less have lost, for their mathematics is the same."""
_REPLACEMENT: Final = 30.0
"""Seconds to wait for a lost worker's replacement."""
_RECONNECTION: Final = 5.0
"""Seconds to wait for a client that reaches for its scheduler again."""
_WARM_UP_SEED: Final = 2**32 - 1


@final
@dataclass
class Runner:
    """Runs contenders one at a time on data that is placed, and keeps all runs.

    Parameters
    ----------
    data, client, own_cluster
        Where.
    comparison : str
        What the runs' places call it.
    target : float or None
        A run that was stopped beyond it is as good as finished.
    on_run : callable or None
        Told of each run as it starts, and the rows it will train on.
    callbacks : CallbackList
        Told of each run while it goes on.
    renew : callable or None
        Brings the data anew, in the order of a seed and with other rows held out; None where it lies on the workers.

    Attributes
    ----------
    runs : list of Run
        All so far.
    a_round : float or None
        Seconds that a round takes.
    ended : str or None
        Why nothing more is to be run.
    """

    data: TrainingData
    client: Client
    own_cluster: bool
    comparison: str
    target: float | None
    on_run: Callable[[Run, int], None] | None
    callbacks: CallbackList = field(default_factory=CallbackList)
    renew: Callable[..., TrainingData] | None = None
    runs: list[Run] = field(default_factory=list)
    a_round: float | None = None
    ended: str | None = None

    def __post_init__(self) -> None:
        self._enough = len(calls.identity(self.client))

    def shuffle(self, seed: int) -> None:
        """Have the rows in another order, and others held out: what a verdict rests on is not one split."""
        if self.renew is None:
            return
        try:
            data = self.renew(seed=seed)
        except (
            StartFailed,
            ValueError,
            OSError,
        ):  # a class that a split misses; of a lost cluster the next start tells
            return
        former, self.data = self.data, data
        former.close()

    def run(
        self,
        one: Contender,
        entry: int,
        stage: Stage,
        number: int,
        of: int | None,
        seed: int,
        most: float | None = None,
    ) -> Run | None:
        """Run a contender once and return the run, over; None where it could not start.

        `ended` is set where nothing may follow. What has finished is never thrown away because the cluster is no longer what it was.
        """
        settings = replace(one.settings, seed=seed, place=Place(self.comparison, entry, stage, number, of))
        try:
            run = launch(settings, self.data, self.client, self.own_cluster, one.workers)
        except (StartFailed, ValueError, OSError) as error:
            if not self.runs:
                raise
            self.ended = f"The comparison ended before {settings.label}: {error}"
            return None
        self.runs.append(run)
        run.follow(self.callbacks)
        if self.on_run is not None:
            self.on_run(run, settings.epochs * self.data.rows)
        try:
            self._wait(run, most)
        except RunFailed:
            # It stands in the comparison with its error. If it lost a worker, the others wait for its replacement.
            if not run.interrupted:
                self._await_workers()
        stopped = run.state == "stopped" and not run.skipped and not self._has_reached(run)
        if stopped or run.interrupted:
            self.ended = "stopped"
        return run

    def _wait(self, run: Run, most: float | None) -> None:
        """Wait for the end of a run, or skip what is left of it after ``most`` seconds of training."""
        while not run.over and most is not None:
            with contextlib.suppress(TimeoutError):
                run.wait(0.25)
            if not run.over and run.train_seconds > most:
                run.skip()
        run.wait()

    def _await_workers(self) -> None:
        """Wait for as many workers as there were, and for a client that has just lost its scheduler; if in vain, the next start tells."""
        began = WALL.now()
        while (waited := WALL.now() - began) < _REPLACEMENT:
            if self.client.status == "running":
                with contextlib.suppress(Exception):  # whatever a cluster says that is about to go
                    self.client.wait_for_workers(self._enough, timeout=1)
                    return
            elif self.client.status != "connecting" or waited > _RECONNECTION:
                return
            WALL.sleep(0.05)

    def _has_reached(self, run: Run) -> bool:
        return self.target is not None and loss_curve(run.history).crossing(self.target) is not None


def warm_up(runner: Runner, contenders: Sequence[Contender]) -> list[int]:
    """Run every contender shortly, uncounted and unbroken; return who is to go on: all but all-core baselines that cannot win.

    The first run of anything pays for what later ones find: imported modules, pages of data in memory, warm caches.
    """
    rates: dict[int, float] = {}
    for entry, one in enumerate(contenders):
        short = replace(one, settings=replace(one.settings, epochs=1, faults=()))
        run = runner.run(short, entry, "warm-up", 0, None, _WARM_UP_SEED, _WARM_UP)
        if runner.ended:
            return list(range(len(contenders)))
        if run is not None and run.state != "failed" and run.train_seconds:
            rates[entry] = float(run.history["samples"].max(initial=0.0)) / run.train_seconds
    return [
        entry
        for entry, one in enumerate(contenders)
        if not (one.may_be_cut and rates.get(entry, 0.0) < _CANNOT_WIN * rates.get(entry - 1, 0.0))
    ]


@final
@dataclass
class Allowance:
    """How many rounds are run: as many as were asked for, or as the time allows.

    Parameters
    ----------
    repeats : int or None
    budget : float or None
        Seconds for all of the comparison, from ``began`` on.
    """

    repeats: int | None
    budget: float | None
    began: float = field(default_factory=WALL.now)

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return WALL.now() - self.began

    def planned(self, done: int, a_round: float) -> int | None:
        """How many rounds there will be in all, once ``done`` were run in ``a_round`` seconds each; None before the first."""
        if not done:
            return self.repeats
        if self.repeats is not None and self.budget is None:
            return self.repeats
        left = (BUDGET if self.budget is None else self.budget) - self.spent
        fit = done + max(0, int(left / a_round)) if a_round > 0 else MOST
        if self.budget is None and a_round <= _SHORT:
            fit = max(fit, FEWEST)
        return min(fit, MOST if self.repeats is None else self.repeats)

    def note(self, done: int, a_round: float, contenders: int) -> str:
        """What the time bought, in words."""
        rounds = f"{done} round{'s' * (done != 1)} of {contenders} run{'s' * (contenders != 1)}"
        text = f"Measured in {rounds}, about {seconds(a_round)} a round; all of it took {seconds(self.spent)}"
        if self.repeats is not None and done < self.repeats:
            return f"{text}: the rest of {self.repeats} rounds did not fit in budget={self.budget:g}."
        if self.budget is not None:
            return f"{text} of a budget of {seconds(self.budget)}."
        return f"{text}." if self.repeats is not None else f"{text}; repeats= and budget= set how many."


def run_rounds(
    runner: Runner, contenders: Sequence[Contender], chosen: Sequence[int], allowance: Allowance, seed: int
) -> str | None:
    """Run the chosen contenders in rounds, until the allowance is used up or somebody stops it; return what is to be said of that."""
    began, done = WALL.now(), 0
    failures = dict.fromkeys(chosen, 0)
    total = allowance.repeats
    while total is None or done < total:
        left = [entry for entry in order(chosen, done) if failures[entry] < 2]
        if done:
            runner.shuffle((seed + done) % 2**32)
        for position, entry in enumerate(left):
            run = runner.run(contenders[entry], entry, "round", done, total, (seed + done) % 2**32)
            failures[entry] += run is not None and run.state == "failed"
            if runner.ended:
                if runner.ended == "stopped":
                    runner.ended = _cut(contenders, left[position + 1 :], done)
                return None
        done += 1
        a_round = runner.a_round = (WALL.now() - began) / done
        total = allowance.planned(done, a_round)
    return allowance.note(done, (WALL.now() - began) / max(1, done), len(chosen))


def order(chosen: Sequence[int], number: int) -> list[int]:
    """Return the order of one round: pairs of rounds that are each other's mirror, each pair begun by another contender.

    Whoever comes before whom in one round comes after it in the next, so that no place is anyone's.

    >>> [order([0, 1, 2], number) for number in range(4)]
    [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]]
    """
    turn = number // 2 % max(1, len(chosen))
    turned = [*chosen[turn:], *chosen[:turn]]
    return turned[::-1] if number % 2 else turned


def _cut(contenders: Sequence[Contender], left: Sequence[int], number: int) -> str | None:
    """What a comparison that was stopped says of itself; None if that was its last run."""
    if not left:
        return f"The comparison was stopped in round {number + 1}." if number else None
    names = listing([contenders[entry].label for entry in sorted(left)])
    return f"The comparison was stopped{f' in round {number + 1}' * (number > 0)} before {names}."
