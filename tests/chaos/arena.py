"""Where draws are played: a cluster whose workers are killed, and the run that must come out of it as if nothing had been."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dask
import numpy as np
import psutil
from distributed import Client
from numpy.testing import assert_array_equal

import scaleml
from chaos.draws import BATCH, EPOCHS, RANKS, ROWS, Draw, drawn_again
from runtime import harness
from runtime.aftermath import Watch
from scaleml.cluster import calls
from scaleml.faults import Kill
from scaleml.neural_network import MLPClassifier
from scaleml.optim import Adam
from scaleml.runtime import recovery_points

DEADLINE = 60.0
"""Seconds in which a run must be over, whatever befalls it: far more than any needs."""
SILENCE = 2.0
"""Seconds after which a rank is asked for."""
RATE = 0.01
_AGAIN = 8  # times that a draw is made again whose run was over before the blow came

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((ROWS * 5 // 4, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)


class Arena:
    """A cluster of workers that come back.

    Parameters
    ----------
    client : Client
        Of the cluster.
    workers : int
        How many it has.
    """

    def __init__(self, client: Client, workers: int) -> None:
        self.client = client
        self._workers = workers
        self._undisturbed: dict[object, scaleml.Run] = {}
        self._stopped: list[int] = []
        self.whole()
        self.undisturbed(Draw(-1, scaleml.AllReduce(), "at a step", (0,), (2,), "nothing", 2, False))
        self._watch = Watch(client)  # what a process keeps from its first run is no leak

    def play(self, draw: Draw) -> None:
        """Fail unless the blow struck, and the run ended as it is to: no hang, no loss, the same bits where that is promised."""
        chance = random.Random(draw.number)
        for _ in range(_AGAIN):
            try:
                if self._strikes(draw):
                    return
            finally:
                self._awaken()
                self.whole()
            draw = drawn_again(draw, chance)
        raise AssertionError(f"each time the run was over before the blow came: {draw}")

    def whole(self) -> None:
        """Wait until all workers are there, and nothing is left of runs."""
        self.client.wait_for_workers(self._workers, timeout=60)
        assert until(lambda: len(calls.identity(self.client)) == self._workers), "a killed worker is still listed"
        if hasattr(self, "_watch"):
            self._watch.nothing_left(15)

    def undisturbed(self, draw: Draw) -> scaleml.Run:
        """Return the run as it is when nothing happens."""
        draw = replace(draw, on_lost="replace")
        key = draw.strategy, draw.beside == "early stopping"
        if key not in self._undisturbed:
            self._undisturbed[key] = self._started(draw, []).wait(DEADLINE)
        return self._undisturbed[key]

    def _started(self, draw: Draw, faults: list[Any]) -> scaleml.Run:
        model: Any = scaleml.MLP((4,))
        settings: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH, "seed": 3, "optimizer": Adam(RATE)}
        if draw.beside == "early stopping":
            model = MLPClassifier((4,), early_stopping=True, n_iter_no_change=EPOCHS, random_state=3)
        return scaleml.start(
            model,
            X,
            Y,
            strategy=draw.strategy,
            workers=RANKS,
            validation=0.2,
            faults=faults,
            client=self.client,
            on_worker_lost=draw.on_lost,
            **settings,
        )

    def _strikes(self, draw: Draw) -> bool:
        """Play it; whether the blow came before the run was over."""
        expected = self.undisturbed(draw) if draw.is_exact else None
        processes = self._on_all(os.getpid)
        for name, rare, often in (("SECONDS", 0.1, 0.0), ("SHARE", 0.005, 1e9)):
            self._on_all(setattr, recovery_points, name, often if draw.often else rare)
        with dask.config.set({"scaleml.comm.timeout": SILENCE} if draw.is_stop else {}):
            run = self._started(draw, draw.faults)
        if not {*run._driver.placement.addresses} <= processes.keys():
            run.stop()
            return False  # a blow of the draw before, in a rank's very last step, came after that run was over
        try:
            first = [processes[address] for address in run._driver.placement.addresses]
            struck = [first[fault.rank] for fault in draw.faults[:1] if isinstance(fault, Kill)]
            if not draw.is_exact:  # ranks keep their own pace: whoever is to be struck first is not
                struck = [first[fault.rank] for fault in draw.faults if isinstance(fault, Kill)]
            self._tell(run, draw)
            struck += self._strike(run, draw)
            error = self._end(run)
        finally:
            if not run.over:
                with contextlib.suppress(Exception):
                    run.stop()
        over_before = run.state == "finished" and not recovered(run)
        if not over_before:
            assert struck, "nobody was struck"
            if not draw.is_exact and run.state == "finished" and any(lives(process) for process in struck):
                return (
                    False  # others had taken the rows before a rank with a pace of its own came to the step of its blow
                )
            assert until(lambda: not any(lives(process) for process in struck)), "the blow did not strike"
        assert error is None, error
        self._check(run, expected)
        missing = set(draw.ranks) - replaced(run) if draw.on_lost == "replace" else set()
        assert over_before or not missing, f"ranks {missing} were not replaced: {run.history.marks}"
        return not over_before

    def _on_all(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Call a function on all workers; again where Dask still used a connection to one that was killed."""
        for _ in range(3):
            with contextlib.suppress(OSError):
                return self.client.run(function, *arguments)
        return self.client.run(function, *arguments)

    @staticmethod
    def _end(run: scaleml.Run) -> str | None:
        try:
            run.wait(DEADLINE)
        except scaleml.RunFailed as error:
            return str(error)
        return None

    @staticmethod
    def _check(run: scaleml.Run, expected: scaleml.Run | None) -> None:
        assert run.state == "finished"
        assert run.params is not None, "the run's parameters are lost"
        assert np.isfinite(run.params).all()
        found = run.history.evaluations
        if expected is None:
            assert found["loss"][-1] < 0.98 * found["loss"][0], "it did not learn"
            return
        assert_array_equal(run.params, expected.params)
        for column in ("step", "samples", "loss", "score"):
            assert_array_equal(found[column], expected.history.evaluations[column], column)
        for rank in range(run.workers):
            steps = run.history["step"][run.history["rank"] == rank]
            assert (np.diff(steps) >= 0).all(), "a step stands in the history twice"

    def _tell(self, run: scaleml.Run, draw: Draw) -> None:
        """Tell the run what it is told beside; it may be over by then."""
        if draw.beside not in ("pause", "rate"):
            return
        until(lambda: run.over or newest(run) >= draw.command)
        with contextlib.suppress(RuntimeError):
            if draw.beside == "rate":
                run.update(learning_rate=RATE)
            else:
                run.pause()

    def _strike(self, run: scaleml.Run, draw: Draw) -> list[int]:
        """Strike from outside where the draw says so, end a pause; return whose processes were struck."""
        struck: list[int] = []
        if draw.blow in ("from outside", "two from outside", "stopped"):
            until(lambda: run.over or run.state == "paused" or newest(run) >= draw.steps[0])
            struck = self._signal(run, draw.ranks, signal.SIGSTOP if draw.is_stop else signal.SIGKILL)
        elif draw.blow == "while recovering":
            if run.state == "paused":  # before the step of the first blow
                with contextlib.suppress(RuntimeError):
                    run.resume()
            until(lambda: run.over or run.state == "recovering" or recovered(run))
            struck = self._signal(run, draw.ranks[1:], signal.SIGKILL)
        if draw.beside == "pause":
            with contextlib.suppress(RuntimeError):
                run.resume()
        return struck

    def _signal(self, run: scaleml.Run, ranks: tuple[int, ...], sign: signal.Signals) -> list[int]:
        """Signal the processes that these ranks are in now; return those that were there."""
        found = []
        for rank in ranks:
            placed = run._driver.placement.addresses
            address = placed[rank % len(placed)]  # there may be fewer by now
            with contextlib.suppress(OSError):  # it is gone already
                found.append(calls.on_workers(self.client, 5, os.getpid, workers=[address])[address])
        for process in dict.fromkeys(found):
            os.kill(process, sign)
        self._stopped += found if sign == signal.SIGSTOP else []
        return found

    def _awaken(self) -> None:
        """End the processes that were stopped: where nobody else has done so they would be stopped for ever."""
        for process in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._stopped.clear()


def until(condition: Callable[[], bool]) -> bool:
    """Wait for a condition, as long as a run may take."""
    return harness.await_condition(condition, DEADLINE)


def lives(process: int) -> bool:
    """Whether a process runs: neither dead nor stopped."""
    try:
        return psutil.Process(process).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def newest(run: scaleml.Run) -> int:
    """Return the newest step in a run's history."""
    return int(run.history["step"].max(initial=-1))


def recovered(run: scaleml.Run) -> list[str]:
    """Return what the history says of recoveries."""
    return [change.text for change in run.history.changes if change.kind == "recovery"]


def replaced(run: scaleml.Run) -> set[int]:
    """Return the ranks that the history says were replaced."""
    said = [re.match(r"ranks? ([\d, ]+) replaced", text) for text in recovered(run)]
    return {int(rank) for match in said if match for rank in match[1].split(",")}
