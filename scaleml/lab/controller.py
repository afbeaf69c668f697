"""Controller: the one thread that owns the runs of a lab. It takes commands from a queue, so that a callback never waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import final

from scaleml.api.compare import compare
from scaleml.api.run import Run
from scaleml.api.trial import short
from scaleml.lab.orders import Break, Clear, Go, Order, Sift, Tell, Update, Wish
from scaleml.lab.program import program_of
from scaleml.optim import Optimizer
from scaleml.telemetry import Comparison
from scaleml.telemetry.environment import Environment


@final
class Controller:
    """Owns the runs of a lab.

    Parameters
    ----------
    changed : callable
        Called, from any thread, when there is something new to show.

    Attributes
    ----------
    phase : {"idle", "starting", "running", "stopping"}
        Of the comparison.
    runs : tuple of Run
        All that were started since the last `Clear`.
    planned, number : int
        How many runs a round has (0: not yet known), and how many of this one have begun.
    rounds : int
        How many rounds of the comparison are over.
    spent : list of float
        Seconds of training of each run of its rounds that is over.
    program : str
        What makes the last comparison without the lab.
    note : str
        What a person should know of the last command; empty if it simply worked.
    error : str
        Why the last comparison ended early; empty unless it did.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.phase = "idle"
        self.runs: tuple[Run, ...] = ()
        self.planned = self.number = self.rounds = 0
        self.spent: list[float] = []
        self.note = self.error = ""
        self._told_to_stop = False
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._comparing: threading.Thread | None = None
        self._lock = threading.Condition()
        self._changed = changed
        self._target: float | None = None
        self._ended: str | None = None
        self._notes: tuple[str, ...] = ()
        self._environment: Environment | None = None
        self._optimizer: Optimizer | None = None
        self.program = ""

    @property
    def live(self) -> Run | None:
        """The run that is under way."""
        runs = self.runs
        return runs[-1] if self.phase != "idle" and runs and not runs[-1].over else None

    @property
    def doing(self) -> str:
        """What runs, in a few words."""
        run, of = self.live, max(self.number, self.planned)
        return f"{run.label}, run {self.number} of {of}" if run is not None else self.phase

    @property
    def target(self) -> float | None:
        """The held-out loss that counts, if one was given."""
        return self._target

    @property
    def result(self) -> Comparison:
        """All runs, compared."""
        return Comparison(self.runs, self._target, self._ended, self._notes, self._environment)

    @property
    def coming(self) -> int:
        """How many runs are to come after this one, as far as that is known."""
        place = self.runs[-1].place if self.runs else None
        if place is None or place.stage != "round" or not self.planned:
            return 0
        return self.planned - self.number + self.planned * ((place.of or place.round + 1) - place.round - 1)

    def submit(self, order: Order) -> None:
        """Queue a command and return at once."""
        with self._lock:
            if isinstance(order, Go) and self.phase == "idle":
                self.phase = "starting"  # now, so that who waits for the end does not find it before the beginning
                self._told_to_stop = False
            elif isinstance(order, Go):
                self.say("A comparison is already running: stop it first.")
                return
            if order == Tell("stop"):
                self._told_to_stop = True  # also heard while the cluster starts
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="scaleml-lab", daemon=True)
                self._thread.start()
        self._orders.put(order)

    def lose(self, error: str) -> None:
        """Note why all ends, and stop what runs."""
        self.error = error
        if self._thread is not None:
            self.submit(Tell("stop"))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no comparison is under way; whether it came to that."""
        with self._lock:
            return self._lock.wait_for(lambda: self.phase == "idle", timeout)

    def close(self) -> None:
        """Stop what runs and end the threads."""
        if self._thread is not None:
            self.submit(Tell("stop"))
            self._orders.put(None)
            self._thread.join()
            self._thread = None

    # The thread.

    def _serve(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                self._handle(order)
            except Exception as error:  # noqa: BLE001  whatever a command meets, the next one is heard
                self.say(str(error) or type(error).__name__)
        if self._comparing is not None:
            self._comparing.join()

    def _handle(self, order: Order) -> None:
        run = self.live
        if isinstance(order, Go):
            self._begin(order)
        elif isinstance(order, Clear):
            self._clear()
        elif isinstance(order, Sift):
            if self.phase == "idle":
                self.runs = order.change(self.runs)
                self.say("")
        elif run is None:
            starting = self.phase != "idle"
            self.say(
                "The run has not started yet."
                if starting and order != Tell("stop")
                else ""
                if starting
                else "Nothing is running."
            )
        elif isinstance(order, Tell):
            self._tell(run, order.verb)
        elif isinstance(order, Update):
            run.update(**order.settings)
            self.say("")
        elif isinstance(order, Break):
            run.inject(order.fault)
            self.say("")
        elif order.run is run:
            run.stop()

    def _tell(self, run: Run, verb: str) -> None:
        if verb == "stop":
            self._turn("stopping")
            run.stop()
        elif verb == "skip":
            run.skip()
        elif verb == "pause":
            run.pause()
        elif run.state == "paused":
            run.resume()
        self.say("")

    def _clear(self) -> None:
        if self.phase != "idle":
            self.say("Stop the comparison before clearing it.")
            return
        self.runs = ()
        self.error = ""
        self._ended, self._notes = None, ()
        self.say("")

    def _begin(self, order: Go) -> None:
        wish = order.wish
        self.runs = () if order.fresh else self.runs
        self.error = ""
        self._ended, self._notes = None, ()
        self.planned = self.number = self.rounds = 0
        self.spent = []
        self._target, self._optimizer = wish.settings.get("target"), wish.optimizer
        self.say("")
        self._comparing = threading.Thread(target=self._compare, args=(wish,), name="scaleml-lab-compare", daemon=True)
        self._comparing.start()

    def _compare(self, wish: Wish) -> None:
        try:
            model, X, y = wish.data()
            self.program = program_of(model, wish.trials, wish.settings, wish.source)
            if not self._told_to_stop:
                found = compare(model, X, y, wish.trials, on_plan=self._on_plan, on_run=self._on_run, **wish.settings)
                self._ended, self._notes, self._environment = found.ended, found.notes, found.environment
        except Exception as error:  # noqa: BLE001  a failing model is shown, and the lab stays alive
            if not self._told_to_stop:
                self.error = self._told(error)
        finally:
            self._turn("idle")

    def _told(self, error: Exception) -> str:
        """Say what ended the comparison."""
        runs = self.runs
        if isinstance(error, OSError) and runs and runs[-1].state == "failed":
            # What Dask says of a cluster that went away tells of its calls; the run has said what happened.
            return (
                f"The comparison ended with {runs[-1].label}: the cluster is gone. Run it again on one that is there."
            )
        return f"{type(error).__name__}: {error}"

    def _on_plan(self, labels: Sequence[str]) -> None:
        self.planned = len(labels)

    def _on_run(self, run: Run, rows: int) -> None:
        if self._optimizer is not None and type(self._optimizer).__name__ not in run.label:
            run.label += f", {short(self._optimizer)}"
        last = self.runs[-1] if self.runs else None
        if run.place is None or run.place.stage == "round":
            self._count(run, last)
        self.runs = (*self.runs, run)
        self._turn("stopping" if self._told_to_stop else "running")
        if self._told_to_stop:
            run.stop()

    def _count(self, run: Run, last: Run | None) -> None:
        """Count a run that begins, and the round that it begins."""
        before = None if last is None else last.place
        if (
            before is not None
            and run.place is not None
            and before.comparison == run.place.comparison
            and before.stage == "round"
        ):
            assert last is not None
            self.spent.append(last.train_seconds)
            if run.place.round != before.round:
                self.number = 0
                self.rounds = run.place.round
        self.number += 1

    def _turn(self, phase: str) -> None:
        with self._lock:
            self.phase = phase
            self._lock.notify_all()
        self._changed()

    def say(self, note: str) -> None:
        self.note = note
        self._changed()
