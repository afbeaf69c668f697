"""A run that does what a test says, as callbacks see it, and a callback that remembers all that it is told."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from scaleml.callbacks import Callback
from scaleml.callbacks.followers import CallbackList
from telemetry_fakes import FakeRun, row

DEADLINE = 20.0


@dataclass
class ScriptedRun(FakeRun):
    """Lives until `end`."""

    state: str = "running"
    parameters: dict = field(default_factory=lambda: {"strategy": "AllReduce()", "learning_rate": 0.1, "epochs": 3})
    stops: int = 0

    @property
    def over(self) -> bool:
        return self.state in ("finished", "stopped", "failed")

    def stop(self) -> None:
        self.stops += 1

    def summary(self) -> str:
        return f"it is {self.state}"

    def rows(self, *steps: int, ranks: int = 1, **values) -> None:
        """A tenth of a second and 8 rows a step, and the loss is 1 / step."""
        for step in steps:
            facts = {"step": step, "time": step / 10, "samples": 8.0 * step, "loss": 1.0 / step, **values}
            self.history.append_rows([row(rank, **facts) for rank in range(ranks)])

    def evaluation(self, step: int) -> None:
        """The held-out loss is 0.5 / (step + 1), the score 0.9."""
        self.history.add_evaluation(step / 10, 8.0 * step * self.workers, step, 0.5 / (step + 1), 0.9)


class Remembers(Callback):
    """Notes every hook."""

    every = 0.001
    patience = DEADLINE

    def __init__(self) -> None:
        self.notes: list[tuple] = []
        self.threads: set[str] = set()
        self._changed = threading.Condition()

    def note(self, *note) -> None:
        with self._changed:
            self.notes.append(note)
            self.threads.add(threading.current_thread().name)
            self._changed.notify_all()

    def of(self, word: str) -> list[tuple]:
        """All notes of a kind, without the word."""
        return [note[1:] for note in self.notes if note[0] == word]

    def heard(self, *words: str, times: int = 1) -> bool:
        """Wait until each word was noted so often; whether it came to that."""
        with self._changed:
            return self._changed.wait_for(lambda: all(len(self.of(word)) >= times for word in words), DEADLINE)

    def on_start(self, run):
        self.note("start", run.label, run.place)

    def on_rows(self, run, rows):
        self.note("rows", rows["step"].tolist())

    def on_evaluation(self, run, evaluation):
        self.note("evaluation", int(evaluation.step))

    def on_change(self, run, change):
        self.note("change", change.kind, change.text)

    def on_end(self, run):
        self.note("end", run.state)

    def on_comparison_end(self, comparison):
        self.note("comparison", comparison)


def follow(run, *callbacks):
    """Have callbacks told of a run, as `train` does; returns what waits for them."""
    return CallbackList(list(callbacks)).follow(run)


def ended(run, followers, state="finished"):
    """End a run and wait for all who follow it."""
    run.state = state
    followers.wake()
    return followers.join()
