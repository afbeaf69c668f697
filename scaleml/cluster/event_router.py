"""Event router: Dask's events, brought to the runs they belong to. One fixed topic, for Dask keeps topics for ever; runs held weakly."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Final, Protocol, cast

from distributed import Client

from scaleml.cluster.events import RankEvent, RankMessage, event_of

TOPIC: Final = "scaleml"
"""Dask's topic that all ranks of all runs log to."""


class RunListener(Protocol):
    """What wants to hear of a run's ranks and workers; called on the client's event loop, which it must not hold up."""

    def on_rank_event(self, event: RankEvent, generation: int) -> None:
        """A rank reports."""

    def on_worker_lost(self, address: str) -> None:
        """Dask removed a worker."""


_lock: Final = threading.Lock()
_by_run: Final[weakref.WeakValueDictionary[str, RunListener]] = weakref.WeakValueDictionary()
_by_address: Final[dict[str, weakref.WeakSet[RunListener]]] = {}


def subscribe(client: Client, run: str, addresses: Iterable[str], listener: RunListener) -> None:
    """Have ``listener`` hear of its ranks and of the loss of their workers."""
    topics = [TOPIC]
    with _lock:
        _by_run[run] = listener
        for address in addresses:
            _by_address.setdefault(address, weakref.WeakSet()).add(listener)
            topics.append(address)
    for topic in topics:
        # Each time: a scheduler that a client has come back to knows nothing of its topics, and Dask's client does not tell it.
        client.subscribe_topic(topic, _on_rank_event if topic == TOPIC else _worker_handler(topic))


def unsubscribe(run: str, addresses: Iterable[str], listener: RunListener) -> None:
    """Stop listening."""
    with _lock:
        _by_run.pop(run, None)
        for address in addresses:
            listeners = _by_address.get(address)
            if listeners is not None:
                listeners.discard(listener)
                if not listeners:
                    del _by_address[address]


def _on_rank_event(event: tuple[float, object]) -> None:
    if isinstance(event[1], dict):
        message = cast(RankMessage, event[1])
        with _lock:
            listener = _by_run.get(message.get("run", ""))
        if listener is not None:
            listener.on_rank_event(event_of(message), message["generation"])


def _worker_handler(address: str) -> Callable[[tuple[float, object]], None]:
    def on_event(event: tuple[float, object]) -> None:
        message = event[1]
        if isinstance(message, dict) and message.get("action") == "remove-worker":
            with _lock:
                listeners = list(_by_address.get(address, ()))
            for listener in listeners:
                listener.on_worker_lost(address)

    return on_event
