"""A fit in this process as callbacks see it: it has what they read of a run, and can be stopped at the end of an epoch."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

from scaleml.api.parameters import parameters_of
from scaleml.arrays import Array
from scaleml.callbacks.base import Callback
from scaleml.callbacks.followers import CallbackList
from scaleml.escaping import printable
from scaleml.models.flat_model import score_name_of
from scaleml.runtime.plan import Plan
from scaleml.telemetry.history import History
from scaleml.telemetry.recorder import Recorder


@final
@dataclass(eq=False)
class InProcessRun:
    """A fit in this process.

    Attributes that are not below have the names and the meaning of those of ``Run``.

    Parameters
    ----------
    label : str
        What trains.
    parameters : mapping
        Its settings, by name.
    recorder : Recorder, optional
        Where rows come from; without one, as of scikit-learn's own code, callbacks are told of its start and its end alone.
    """

    label: str
    parameters: Mapping[str, object]
    recorder: Recorder | None = None
    settings: str = ""
    optimizer: str = ""
    learning_rate: float = float("nan")
    rows_an_update: int = 0
    total_samples: int | None = None
    n_params: int = 0
    score_name: str = "score"
    state: str = "running"
    error: str | None = None
    params: Array | None = None
    is_told_to_stop: bool = False
    place: None = None
    is_serial: bool = True
    workers: int = 1
    hosts: int = 1
    planned_faults: tuple[Mapping[str, object], ...] = ()
    suspect: str = ""
    placing_seconds: float | None = None
    baseline_score: float | None = None
    _history: History = field(default_factory=History)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, plan: Plan, recorder: Recorder) -> InProcessRun:
        """Return the run of a plan for one rank."""
        return cls(
            repr(plan.strategy),
            {"strategy": repr(plan.strategy), **parameters_of(plan), "workers": 1},
            recorder,
            settings=f"{plan.optimizer!r}, batch {plan.batch_size}, {plan.epochs} epochs of {plan.rows} rows, {plan.dtype}{plan.form}",
            optimizer=repr(plan.optimizer),
            learning_rate=plan.optimizer.learning_rate,
            rows_an_update=plan.batch_size,
            total_samples=plan.goal,
            n_params=plan.model.size,
            score_name=score_name_of(plan.model),
        )

    @property
    def first_label(self) -> str:
        """The same as `label`."""
        return self.label

    @property
    def cores(self) -> int:
        """Of this machine."""
        return os.cpu_count() or 1

    @property
    def threads(self) -> int:
        """At most one a core."""
        return self.cores

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.state != "running"

    @property
    def history(self) -> History:
        """What happened so far."""
        if self.recorder is not None:
            with self._lock:  # callbacks read in threads of their own
                self._history.take(*self.recorder.drain(), self.recorder.drain_epochs())
        return self._history

    @property
    def train_seconds(self) -> float:
        """The training clock: seconds from the first step, without evaluations."""
        return self.history.clock(1)

    def stop(self) -> None:
        """Have it end with this epoch; scikit-learn's own code goes on."""
        self.is_told_to_stop = True

    def summary(self) -> str:
        """Return how it stands, or how it ended, in a few lines."""
        from scaleml.telemetry.report import run_text

        return run_text(self) + (f"\n\n{printable(self.error)}" if self.error else "")


@contextmanager
def followed(run: InProcessRun, callbacks: Sequence[Callback]) -> Iterator[None]:
    """Have callbacks told of a run that lasts as long as the block."""
    followers = CallbackList(callbacks).follow(run)
    try:
        yield
        run.state = "stopped" if run.is_told_to_stop and run.recorder is not None else "finished"
    except BaseException as error:
        run.error = f"{type(error).__name__}: {error}"
        run.state = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        raise
    finally:
        followers.wake()
        followers.join()
