"""The driver of a detached run, as a process sees it that has attached to it: the real one drives on a worker of the cluster."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping
from types import EllipsisType
from typing import Final, TypeVar, final

from distributed import Client, Future

from scaleml.api.detached_task import Record, Standing, look, record, tell
from scaleml.api.run_waiter import RunWaiter
from scaleml.arrays import Array
from scaleml.clock import WALL
from scaleml.cluster import calls
from scaleml.cluster.errors import words_of
from scaleml.cluster.events import OVER, RunState
from scaleml.cluster.installation import there
from scaleml.cluster.placement import Placement, Workers
from scaleml.cluster.results import Result
from scaleml.runtime.plan import Plan
from scaleml.strategies import Strategy
from scaleml.telemetry.history import History
from scaleml.telemetry.history_copy import News, Seen, news, take

EVERY: Final = 0.1
"""Seconds between two looks at the run."""
_LOOK: Final = 2.0  # seconds for an answer: then it is asked whether the worker is still there
_COMMAND: Final = 120.0  # seconds: what is told there has a deadline of its own, which comes first

Answer = TypeVar("Answer")


class NotThere(Exception):
    """The worker that drove the run is gone, or drives it no more."""


@final
class DetachedDriver:
    """Follows a detached run; a `RunDriver`.

    Parameters
    ----------
    client : Client
        The cluster.
    name : str
        Of the run.
    future : Future
        Its task.
    place : list of str
        The keys of the scheduler's metadata that say where it is driven.

    Raises
    ------
    Exception
        What the start of the run has raised, where it did not begin.
    """

    def __init__(self, client: Client, name: str, future: Future[bytes], place: list[str]) -> None:
        self.client = client
        self.name = name
        self.history = History()
        self.result: Result | None = None
        self.error: str | None = None
        self.topology: str | None = None
        self.state: RunState = "starting"
        self._future = future
        self._place = place
        self._on_change: Callable[[], None] | None = None
        self._looking = threading.Lock()
        self._seen = Seen()
        self._version: tuple[int, ...] = ()
        begun = self._begun()
        self.facts, self.generation, self.plan_in_force = begun.facts, begun.first, begun.first.plan
        self._id = begun.standing.run
        self._take_all(begun)
        self._thread = threading.Thread(target=self._follow, name=f"scaleml-attached-{name}", daemon=True)

    @property
    def plan(self) -> Plan:
        """The mathematics that the ranks were started with."""
        return self.generation.plan

    @property
    def placement(self) -> Placement:
        """Where the ranks are."""
        return self.generation.placement

    @property
    def is_alive(self) -> bool:
        """Whether this process follows the run."""
        return self._thread in threading.enumerate() or self.state in OVER

    def start(self, on_change: Callable[[], None]) -> None:
        """Follow the run; ``on_change`` is called after each change of its state."""
        self._on_change = on_change
        self._thread.start()

    def join(self) -> None:
        """Wait until the run is over and all of it was seen."""
        self._thread.join()

    def newest_params(self) -> Array | None:
        """Nothing: parameters of a detached run come when it is over."""
        return None

    def tell(self, verb: str, settings: dict[str, object]) -> None:
        """Tell the run something; return when it has done it.

        Raises
        ------
        NotThere
            Where nobody drives the run now.
        """
        if not self._ask(_COMMAND, tell, self.name, verb, settings):
            raise NotThere
        self._look()

    def _follow(self) -> None:
        pause = threading.Event()
        while self.state not in OVER:
            try:
                try:
                    self._look()
                except NotThere:
                    self._find_again()
            except Exception as error:  # noqa: BLE001  whatever it is, who waits for the run must hear of it
                self._fail(
                    f"it can no longer be followed here ({words_of(error)}); scaleml.attach({self.name!r}) tries again"
                )
            pause.wait(EVERY)
        self._changed()

    def _look(self) -> None:
        with self._looking:  # whoever has told it something looks at once, beside the thread that follows it
            try:
                told = self._ask(_LOOK, look, self.name, self._seen, self._version)
            except TimeoutError:
                return
            if told is None:
                raise NotThere
            standing, new = pickle.loads(told)
            if standing.run != self._id:
                self._take_all(self._begun())
            elif standing.state not in OVER:  # what it has left comes with its task's end
                self._take(standing, new)

    def _take_all(self, whole: Record) -> None:
        """Take in all of a run: at its end, or of one that was begun again since."""
        if whole.standing.run != self._id:
            self._id, self._seen = whole.standing.run, Seen()
            self.history.rewind(-1)
        self.result = whole.result
        self._take(whole.standing, news(whole.history, self._seen))

    def _take(self, standing: Standing, new: News) -> None:
        before = self.state, self._version
        take(self.history, new)
        self._seen, self._version = new.seen, standing.version
        self.generation = standing.generation or self.generation
        self.plan_in_force = standing.plan or self.plan_in_force
        self.topology, self.error = standing.topology, standing.error
        self.state = standing.state  # last: who sees that it is over has its result
        if (self.state, self._version) != before:
            self._changed()

    def _begun(self) -> Record:
        """Return the run's record, as soon as there is one."""
        pause = threading.Event()
        while True:
            if self._future.done():
                return self._ended()
            try:
                told = self._ask(calls.CALL_TIMEOUT, record, self.name)
            except NotThere:
                told = None
            if told is not None:
                found: Record = pickle.loads(told)
                return found
            pause.wait(EVERY / 5)

    def _ended(self) -> Record:
        ended: Record = pickle.loads(self._future.result(timeout=_COMMAND))
        return ended

    def _find_again(self) -> None:
        """Look what has become of a run that is not driven where it was."""
        if self.client.status != "running":
            self._fail(
                f"the Dask client is {self.client.status}; the run may well go on: scaleml.attach({self.name!r}) with a client that is "
                "connected finds it"
            )
        elif self._future.status == "finished":
            self._take_all(self._ended())
        elif self._future.status in ("error", "cancelled", "lost"):
            error = self._future.exception() if self._future.status == "error" else None
            self._fail(f"the task of the run is {self._future.status}{f': {error}' if error else ''}; start it again")
        elif self.state != "recovering":
            self.state = "recovering"
            self._changed()

    def _fail(self, error: str) -> None:
        self.error, self.state = error, "failed"

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()

    def _ask(self, seconds: float, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Call a function on the worker that drives the run."""
        try:
            place: dict[str, str] = self.client.get_metadata(self._place)
        except Exception as error:
            raise NotThere from error
        if not place:
            raise NotThere  # no worker has taken it up yet
        address = place["worker"]
        try:
            answers = calls.ask_each(
                self.client,
                seconds,
                lambda at: calls.on_worker(self.client, at, there(function), *arguments),
                [address],
            )
        except Exception as error:
            raise NotThere from error
        answer = answers[address]
        if isinstance(answer, TimeoutError) and address in calls.identity(self.client):
            raise answer  # it is there, and busy
        if isinstance(answer, OSError):
            raise NotThere from answer
        if isinstance(answer, BaseException):
            raise answer
        return answer


@final
class DetachedSender(RunWaiter):
    """Brings commands to a detached run; a `Sender`.

    Parameters
    ----------
    driver : DetachedDriver
        The run's, as it is followed here.
    """

    is_detached: Final = True

    def __init__(self, driver: DetachedDriver) -> None:
        self._driver = driver
        super().__init__(driver)

    def plan(self, *, applied: bool) -> Plan:
        """Return the plan in force, as far as it is known here."""
        return self._driver.plan_in_force

    def stop(self) -> None:
        """End the run; return when it is over."""
        self.tell("stop")
        self.wait_until(self._is_over, None)

    def tell(self, verb: str, settings: Mapping[str, object] | None = None) -> None:
        """Tell the run something; return when it has done it.

        Raises
        ------
        RuntimeError
            When the run is over.
        TimeoutError
            When nobody drives it: the worker that did was lost.
        """
        deadline = WALL.now() + _COMMAND
        while not self._is_over():
            try:
                self._driver.tell(verb, dict(settings or {}))
                return
            except NotThere:
                if WALL.now() > deadline:
                    raise TimeoutError(
                        f"{verb} was not heard within {_COMMAND:g} s: the worker that drove {self._driver.name!r} was lost, and no other "
                        "one has begun it again"
                    ) from None
                self.wait_until(self._is_over, EVERY)
        if verb != "stop":
            raise RuntimeError(f"the run is {self._driver.state}: it can no longer be told to {verb}; start a new one")

    def update(
        self,
        strategy: Strategy | None,
        learning_rate: float | None,
        batch_size: int | None,
        workers: Workers | EllipsisType = ...,
    ) -> None:
        """Change settings in mid-run; see `Run.update`."""
        given = {"strategy": strategy, "learning_rate": learning_rate, "batch_size": batch_size}
        told: dict[str, object] = {name: value for name, value in given.items() if value is not None}
        self.tell("update", told if workers is ... else told | {"workers": workers})
