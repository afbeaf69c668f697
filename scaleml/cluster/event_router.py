"""Dask's events, brought to the runs they belong to: one fixed topic, runs held weakly."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from distributed import Client

from scaleml.cluster.reporter import TOPIC


class Listener(Protocol):
    """What wants to hear of a run's ranks and workers."""

    def on_message(self, message: dict[str, Any]) -> None:
        """A rank reports."""

    def on_worker_lost(self, address: str) -> None:
        """Dask removed a worker."""


_lock: Final = threading.Lock()
_by_run: Final[weakref.WeakValueDictionary[str, Any]] = weakref.WeakValueDictionary()
_by_address: Final[dict[str, weakref.WeakSet[Any]]] = {}


def listen(client: Client, run: str, addresses: Iterable[str], listener: Any) -> None:
    """Have ``listener`` hear of its ranks and of the loss of their workers."""
    topics = [TOPIC]
    with _lock:
        _by_run[run] = listener
        for address in addresses:
            _by_address.setdefault(address, weakref.WeakSet()).add(listener)
            topics.append(address)
    handlers = client._event_handlers
    for topic in topics:
        handler = _on_event if topic == TOPIC else _worker_handler(topic)
        if topic not in handlers:
            client.subscribe_topic(topic, handler)


def forget(run: str, addresses: Iterable[str], listener: Any) -> None:
    """Stop listening."""
    with _lock:
        _by_run.pop(run, None)
        for address in addresses:
            listeners = _by_address.get(address)
            if listeners is not None:
                listeners.discard(listener)
                if not listeners:
                    del _by_address[address]


def _on_event(event: tuple[float, Any]) -> None:
    message = event[1]
    if isinstance(message, dict):
        with _lock:
            listener = _by_run.get(message.get("run", ""))
        if listener is not None:
            listener.on_message(message)


def _worker_handler(address: str) -> Callable[[tuple[float, Any]], None]:
    def on_event(event: tuple[float, Any]) -> None:
        message = event[1]
        if isinstance(message, dict) and message.get("action") == "remove-worker":
            with _lock:
                listeners = list(_by_address.get(address, ()))
            for listener in listeners:
                listener.on_worker_lost(address)

    return on_event
