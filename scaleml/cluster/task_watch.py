"""Task watch: what Dask tells of ranks that cannot tell it themselves: tasks that erred, were cancelled, or ended without a word."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final, Generic, Protocol, TypeVar, final

from distributed import Client, Future, KilledWorker

from scaleml.cluster import calls
from scaleml.cluster.errors import words_of
from scaleml.cluster.events import ClientLost, Event, Left, RankFailed, WorkerLost
from scaleml.cluster.heartbeat import why_client_lost


class EndOfTask(Protocol):
    """How a rank ended, as far as it is looked at here."""

    @property
    def status(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def error(self) -> str | None: ...


End = TypeVar("End", bound=EndOfTask)

_GRACE: Final = 1.0
"""Seconds for the report of a rank that has ended by itself: an error never gets that far."""
_AGAIN: Final = "start the run again"


@final
class TaskWatch(Generic[End]):
    """Looks at the tasks of one generation's ranks. A rank's own report comes first: only its absence is told here.

    Parameters
    ----------
    client : Client
        The cluster.
    futures : sequence of Future
        The tasks, by rank; grows while they are submitted.
    """

    def __init__(self, client: Client, futures: Sequence[Future[End | None]]) -> None:
        self._client = client
        self._futures = futures
        self._over_since: dict[int, float] = {}

    def look(self, ended: Container[int], now: float) -> list[Event]:
        """Return what is new of ranks that have not ended yet, as far as is known.

        Parameters
        ----------
        ended : container of int
            The ranks of whose end the supervisor knows.
        now : float
            Seconds.
        """
        found: list[Event] = []
        for rank, future in enumerate(self._futures):
            status = future.status
            if status in ("cancelled", "lost"):  # also of ranks that have ended: of just this
                return [ClientLost(self._why_cancelled(future))]
            if status == "pending" or rank in ended:
                continue
            if status == "error" or now - self._over_since.setdefault(rank, now) >= _GRACE:
                found += self._end_of(rank, future)
        return found

    def _end_of(self, rank: int, future: Future[End | None]) -> list[Event]:
        """Return how a task ended of which no report came."""
        try:
            outcome = calls.within(self._client, calls.CALL_TIMEOUT, future._result(), "asking how a rank ended")
        except KilledWorker as error:  # where Dask allows no failures
            return [WorkerLost(error.last_worker.address)]
        except Exception as error:  # noqa: BLE001  whatever it is, it ended the rank
            return _failed(rank, words_of(error))
        if outcome is None:
            words = f"its worker has started anew since it was chosen, and knows nothing of the run; {_AGAIN}"
            return _failed(rank, words, "unknown")
        failed = _failed(rank, outcome.error or "it did not say why")[:1] if outcome.status == "failed" else []
        return [*failed, Left(rank, outcome.status, outcome.step)]

    def _why_cancelled(self, future: Future[End | None]) -> str:
        if self._client.status != "running":
            return why_client_lost(self._client)
        reasons = {
            "scheduler-restart": f"the Dask cluster was restarted (client.restart()), which ends all tasks; {_AGAIN}",
            "scheduler-connection-lost": (
                "the Dask client lost its connection to the scheduler, which then forgets all that the client had asked for, also if "
                f"the client comes back; {_AGAIN}"
            ),
        }
        reason = ""
        try:
            calls.within(self._client, calls.CALL_TIMEOUT, future._result(), "asking why a rank was cancelled")
        except Exception as error:  # noqa: BLE001  Dask's, with its reason
            reason = str(getattr(error, "reason", ""))
        return reasons.get(reason, f"the tasks of the run were cancelled in Dask; {_AGAIN}")


def _failed(rank: int, words: str, cause: str = "own") -> list[Event]:
    return [RankFailed(rank, words, cause, 0), Left(rank, "failed", 0)]
