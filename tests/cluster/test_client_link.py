"""How a client's link to its scheduler stands, by what Dask's client shows of it."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any, cast

import dask
from distributed import Client

from scaleml.cluster import client_link
from scaleml.cluster.client_link import ClientLink


def linked(address: str = "tcp://127.0.0.1:1") -> tuple[Any, ClientLink]:
    client = SimpleNamespace(status="running", scheduler_comm=object(), scheduler=SimpleNamespace(address=address))
    return client, ClientLink(cast(Client, client))


def test_another_connection_is_noticed_also_if_nobody_saw_the_first_one_go() -> None:
    client, link = linked()
    assert link.look() == "up"
    client.scheduler_comm = object()
    assert [link.look(), link.look()] == ["back", "back"]
    link.renewed()
    assert link.look() == "up"


def test_it_is_awaited_while_somebody_may_be_there(monkeypatch: Any) -> None:
    clock = iter(range(0, 100, 10))
    monkeypatch.setattr(client_link, "WALL", SimpleNamespace(now=lambda: next(clock)))
    with socket.create_server(("127.0.0.1", 0)) as server, dask.config.set({"scaleml.client-timeout": "25s"}):
        client, link = linked(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        client.status = "connecting"
        assert [link.look() for _ in range(4)] == ["down", "down", "down", "gone"]
        client.status = "running"
        assert link.look() == "up"
        client.status = "connecting"
        assert link.look() == "down"  # counted anew


def test_nobody_waits_for_a_scheduler_that_is_gone_or_for_a_client_that_was_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    client, link = linked(f"tcp://127.0.0.1:{port}")
    client.status = "connecting"
    assert link.look() == "gone"
    client, link = linked("inproc://127.0.0.1/1/1")
    client.status = "connecting"
    assert link.look() == "down"
    client.status = "closed"
    assert link.look() == "gone"
