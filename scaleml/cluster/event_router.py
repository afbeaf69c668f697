"""Event router: Dask's events, brought to the runs they belong to. One fixed topic, for Dask keeps topics for ever; runs held weakly."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterable
from typing import Final, Protocol, cast, final

from distributed import Client

from scaleml.cluster import calls
from scaleml.cluster.events import RankEvent, RankMessage, event_of

TOPIC: Final = "scaleml"
"""Dask's topic that all ranks of all runs log to."""
_UNDER_WAY: Final = 5.0
"""Seconds for which events of a worker may still come after its loss."""


class RunListener(Protocol):
    """What wants to hear of a run's ranks and workers; called on the client's event loop, which it must not hold up."""

    def on_rank_event(self, event: RankEvent, generation: int) -> None:
        """A rank reports."""

    def on_worker_lost(self, address: str) -> None:
        """Dask removed a worker."""

    def on_worker_leaving(self, address: str) -> None:
        """A worker begins to close: it is retired, or its process was told to end."""


_lock: Final = threading.Lock()
_by_run: Final[weakref.WeakValueDictionary[tuple[str, str], RunListener]] = weakref.WeakValueDictionary()
"""By client and run: each client of a scheduler is told of all runs there."""
_handlers: Final[weakref.WeakKeyDictionary[Client, _RankHandler]] = weakref.WeakKeyDictionary()
_by_address: Final[dict[str, weakref.WeakSet[RunListener]]] = {}


def subscribe(client: Client, run: str, addresses: Iterable[str], listener: RunListener) -> None:
    """Have ``listener`` hear of its ranks and of the loss of their workers."""
    topics = [TOPIC]
    with _lock:
        _by_run[client.id, run] = listener
        handler = _handlers.setdefault(client, _RankHandler(client.id))
        for address in addresses:
            _by_address.setdefault(address, weakref.WeakSet()).add(listener)
            topics.append(address)
    for topic in topics:
        # Each time: a scheduler that a client has come back to knows nothing of its topics, and Dask's client does not tell it.
        client.subscribe_topic(topic, handler if topic == TOPIC else _WorkerHandler(client, topic))


def unsubscribe(run: str, listener: RunListener) -> None:
    """Stop listening."""
    with _lock:
        for key in [key for key in _by_run if key[1] == run]:
            del _by_run[key]
        for address, listeners in list(_by_address.items()):
            listeners.discard(listener)
            if not listeners:
                del _by_address[address]


def replay(client: Client) -> None:
    """Have the client's runs hear what ranks have told while it had no connection, of which Dask keeps the last 1,000 events.

    Raises
    ------
    TimeoutError, OSError
        Where the scheduler does not answer.
    """
    with _lock:
        handler = _handlers[client]

    async def hear_again() -> None:
        assert client.scheduler is not None
        for event in await client.scheduler.events(topic=TOPIC):
            if event[0] > handler.newest:
                handler(event)

    calls.within(client, calls.CALL_TIMEOUT, hear_again(), "asking the scheduler for what ranks have told")


@final
class _RankHandler:
    """Hears of all ranks, for one client.

    Attributes
    ----------
    newest : float
        When the last event came to the scheduler, by its clock.
    """

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self.newest = -math.inf

    def __call__(self, event: tuple[float, object]) -> None:
        """Tell whose run it is."""
        self.newest = max(self.newest, event[0])
        if not isinstance(event[1], dict):
            return
        message = cast(RankMessage, event[1])
        with _lock:
            listener = _by_run.get((self._client_id, message.get("run", "")))
        if listener is not None:
            listener.on_rank_event(event_of(message), message["generation"])


@final
class _WorkerHandler:
    """Hears of one worker, for one client, until it is lost: the next one has another address, and nobody would ask for this again.

    Attributes
    ----------
    is_over : bool
        Whether it hears nothing any more.
    """

    def __init__(self, client: Client, address: str) -> None:
        self._client = weakref.ref(client)
        self._address = address
        self.is_over = False

    def __call__(self, event: tuple[float, object]) -> None:
        """Tell that the worker begins to close, and of its loss."""
        message = event[1]
        if self.is_over or not isinstance(message, dict):
            return
        action, status = message.get("action"), message.get("status")
        is_leaving = action == "worker-status-change" and status in ("closing_gracefully", "closing")
        if action != "remove-worker" and not is_leaving:
            return
        with _lock:
            listeners = list(_by_address.get(self._address, ()))
        for listener in listeners:
            if is_leaving:
                listener.on_worker_leaving(self._address)
            else:
                listener.on_worker_lost(self._address)
        if is_leaving:
            return
        client = self._client()
        if client is not None and client.loop is not None:
            self.is_over = True
            client.unsubscribe_topic(self._address)
            client.loop.call_later(_UNDER_WAY, self._forget)  # Dask calls a topic without a handler an error

    def _forget(self) -> None:
        client = self._client()
        if client is not None and client._event_handlers.get(self._address) is self:
            del client._event_handlers[self._address]
