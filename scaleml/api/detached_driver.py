"""The driver of a detached run, as a process sees it that has attached to it: the real one drives on a worker of the cluster."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Final, TypeVar, final

from distributed import Client, Future

from scaleml.api.detached_task import Record, Standing, look, record, tell
from scaleml.arrays import Array
from scaleml.clock import WALL
from scaleml.cluster import calls, config
from scaleml.cluster.client_link import ClientLink
from scaleml.cluster.errors import StartFailed, words_of
from scaleml.cluster.events import OVER, RunState
from scaleml.cluster.installation import there
from scaleml.cluster.placement import Placement
from scaleml.cluster.results import Result
from scaleml.runtime.plan import Plan
from scaleml.telemetry.history import History
from scaleml.telemetry.history_copy import News, Seen, news, take

EVERY: Final = 0.1
"""Seconds between two looks at the run."""
_LOOK: Final = 2.0  # seconds for an answer: then it is asked whether the worker is still there
COMMAND: Final = 120.0
"""Seconds for what the run is told: there it has a deadline of its own, which comes first."""

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
    again : callable
        Returns its task anew, for a client that has lost its connection; None where the cluster has no such run any more.

    Raises
    ------
    TimeoutError
        When no worker takes it up within ``scaleml.recovery-timeout``.
    Exception
        What the start of the run has raised, where it did not begin.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        future: Future[bytes],
        place: list[str],
        again: Callable[[], Future[bytes] | None],
    ) -> None:
        self.client = client
        self.name = name
        self.history = History()
        self.result: Result | None = None
        self.error: str | None = None
        self.topology: str | None = None
        self.state: RunState = "starting"
        self._future = future
        self._place = place
        self._again = again
        self._link = ClientLink(client)
        self._taken_up = WALL.now()
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
        if not self._ask(COMMAND, tell, self.name, verb, settings):
            raise NotThere
        self._look()

    def _follow(self) -> None:
        pause = threading.Event()
        while self.state not in OVER:
            try:
                try:
                    if self._is_linked():
                        self._look()
                except NotThere:
                    self._find_again()
                except StartFailed:  # so says a call on a client that was closed meanwhile
                    self._is_linked()
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
        self._seen, self._version, self._taken_up = new.seen, standing.version, WALL.now()
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
            if not self._is_taken_up():
                raise TimeoutError(f"detached run {self.name!r}: {self._nobody_has_it()}")
            pause.wait(EVERY / 5)

    def _ended(self) -> Record:
        ended: Record = pickle.loads(self._future.result(timeout=COMMAND))
        return ended

    def _is_linked(self) -> bool:
        """Return whether this process reaches the scheduler; what is to be done where it has lost the connection."""
        link = self._link.look()
        if link == "gone":
            self._fail(
                f"the Dask client is {self.client.status}; the run may well go on: scaleml.attach({self.name!r}) with a client that is "
                "connected finds it"
            )
        elif link == "back":  # with the former connection the scheduler has forgotten what this client holds
            found = self._again()
            if found is None:
                self._fail("while this process was not connected somebody has unpublished it: start it again")
            else:
                self._future = found
                self._link.renewed()
        return link == "up"

    def _find_again(self) -> None:
        """Look what has become of a run that is not driven where it was."""
        if not self._is_linked():
            return
        if self._future.status == "finished":
            self._take_all(self._ended())
        elif self._future.status in ("error", "cancelled", "lost"):
            error = self._future.exception() if self._future.status == "error" else None
            self._fail(f"the task of the run is {self._future.status}{f': {error}' if error else ''}; start it again")
        elif not self._is_taken_up():
            self._fail(self._nobody_has_it())
        elif self.state != "recovering":
            self.state = "recovering"
            self._changed()

    def _is_taken_up(self) -> bool:
        """Return whether a worker has the run's task, or had it a while ago."""
        assert self.client.scheduler is not None
        question = self.client.scheduler.get_task_status(keys=[self._future.key])
        states = calls.within(self.client, calls.CALL_TIMEOUT, question, "asking the Dask scheduler for the run's task")
        now = WALL.now()
        if states[self._future.key] not in (None, "no-worker", "queued", "waiting", "released"):
            self._taken_up = now
        return now < self._taken_up + config.seconds("recovery-timeout")

    def _nobody_has_it(self) -> str:
        return (
            f"no worker has taken it up within {config.seconds('recovery-timeout'):g} s (scaleml.recovery-timeout); Dask begins it as soon "
            f"as one is there: scaleml.attach({self.name!r}) then finds it"
        )

    def _fail(self, error: str) -> None:
        self.error, self.state = error, "failed"

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()

    def _ask(self, seconds: float, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Call a function on the worker that drives the run."""
        assert self.client.scheduler is not None
        try:
            place: dict[str, str] = calls.within(
                self.client,
                calls.CALL_TIMEOUT,
                self.client.scheduler.get_metadata(keys=self._place, default=None),
                "asking the Dask scheduler for the run's worker",
            )
        except (StartFailed, TimeoutError):
            raise  # the client is closed; the scheduler is busy, or out of reach: neither says anything of the run
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
        except (StartFailed, TimeoutError):
            raise
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
