"""Listeners and connect: the right ranks, in time."""

import socket
import sys
import threading

import pytest

from meeting import TOKEN, families, listen, meet, total
from scaleml.comm import Aborted, HandshakeError, connect
from scaleml.comm.transport import nearby


@pytest.mark.parametrize("size", [1, 2, 5])
def test_ranks_meet(size):
    listeners = [listen(rank) for rank in range(size)]
    assert meet(listeners, total) == [(size, size, True)] * size
    for one in listeners:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(one.address, timeout=1)


linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")


@linux
def test_they_listen_at_one_address_alone():
    with listen(0) as one:
        assert one.address[0] == "127.0.0.1"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", one.address[1]), timeout=1)


@linux
def test_ranks_of_one_host_meet_at_the_second_door():
    listeners = [listen(rank) for rank in range(3)]
    assert meet(listeners, families) == [{socket.AF_UNIX}] * 3
    assert [nearby.dial(one.address, TOKEN, 1) for one in listeners] == [None] * 3, "closed with the first"


def test_without_shared_memory_they_meet_at_the_first():
    listeners = [listen(rank) for rank in range(3)]
    assert meet(listeners, families, shared_memory=False) == [{socket.AF_INET}] * 3


def test_ranks_meet_under_tls(tls):
    listeners = [listen(rank, tls=tls[0]) for rank in range(3)]
    assert meet(listeners, total, tls=tls[1], shared_memory=False) == [(3, 3, False)] * 3
    listeners = [listen(rank, tls=tls[0]) for rank in range(2)]
    assert meet(listeners, families, tls=tls[1]) == [{socket.AF_INET}] * 2, "Dask's certificates guard every link"


def test_a_plain_rank_does_not_get_into_a_tls_group(tls):
    listeners = [listen(0, tls=tls[0]), listen(1, tls=tls[0])]
    results = meet(listeners, total, deadline_s=0.3)
    assert all(isinstance(result, HandshakeError) for result in results)


def test_ipv6():
    try:
        listeners = [listen(rank, host="::1") for rank in range(2)]
    except HandshakeError:
        pytest.skip("no IPv6 here")
    assert meet(listeners, total) == [(2, 2, True)] * 2


def test_port_range():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        if port > 65_000:
            pytest.skip("no room above the port")
        with listen(0, port_range=(port, port + 20)) as one:
            assert port < one.address[1] <= port + 20
        with pytest.raises(HandshakeError, match=f"a port of {port} to {port}: .*one of its ports must be free"):
            listen(0, port_range=(port, port))


def test_a_host_that_is_not_ours():
    with pytest.raises(
        HandshakeError, match=r"cannot listen on 192\.0\.2\.1, any port: .*must be an address of this machine"
    ):
        listen(0, host="192.0.2.1")


def test_missing_ranks_are_named():
    with socket.create_server(("127.0.0.1", 0)) as one:
        gone = one.getsockname()
    present = listen(2)
    book = [gone, gone, present.address, gone]
    with pytest.raises(HandshakeError) as caught:
        connect(present, book, rank=2, deadline_s=0.2)
    assert caught.value.missing == (0, 1, 3)
    message = str(caught.value)
    assert f"rank 0 at 127.0.0.1:{gone[1]}" in message
    assert "(it never called)" in message
    assert "rank 2 at" not in message


def test_an_abort_ends_the_waiting():
    first = listen(0)
    timer = threading.Timer(0.02, first.abort, args=("the user gave up",))
    timer.start()
    with pytest.raises(Aborted, match="the user gave up"):
        connect(first, [first.address, ("127.0.0.1", 1)], rank=0)
    timer.join()


def test_an_abort_ends_the_dialling():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never answers
        last = listen(1)
        timer = threading.Timer(0.05, last.abort, args=("the user gave up",))
        timer.start()
        with pytest.raises(Aborted, match="the user gave up"):
            connect(last, [silent.getsockname(), last.address], rank=1)
        timer.join()


def test_an_abort_ends_the_making_of_the_group(monkeypatch):
    """A peer that stops between its links and the group."""
    go = threading.Event()

    def build(*arguments):
        go.wait()
        return true(*arguments)

    from scaleml.comm.transport import rendezvous

    true = rendezvous.build
    slow = []
    monkeypatch.setattr(
        rendezvous, "build", lambda *args: build(*args) if args[1] == 1 else slow.append(1) or true(*args)
    )
    listeners = [listen(0), listen(1)]

    def give_up():
        listeners[0].abort("the user gave up")
        go.set()

    timer = threading.Timer(0.2, give_up)
    timer.start()
    results = meet(listeners, total)
    timer.join()
    assert isinstance(results[0], Aborted)
    assert isinstance(results[1], Exception)


def test_a_listener_that_nobody_used_closes():
    one = listen(0)
    one.close()
    one.close()
    other = listen(0)
    other.abort("before it began")
    with pytest.raises(Aborted, match="before it began"):
        connect(other, [other.address], rank=0)
