"""Listeners and connect: the right ranks, in time, undisturbed by strangers."""

import contextlib
import socket
import sys
import threading

import numpy as np
import pytest

from scaleml.comm import Aborted, CommError, HandshakeError, Listener, connect
from scaleml.comm.transport import listener, nearby

TOKEN = b"t" * 32


def listen(rank, host="127.0.0.1", token=TOKEN, generation=0, **options):
    return Listener(host, token=token, run=1, generation=generation, rank=rank, **options)


def meet(listeners, work, deadline_s=10.0, **options):
    """Connect all listeners, each on a thread; return what `work` returns, or the errors."""
    book = [one.address for one in listeners]
    results = [None] * len(listeners)

    def target(rank):
        try:
            with connect(listeners[rank], book, rank=rank, deadline_s=deadline_s, timeout=10.0, **options) as group:
                results[rank] = work(group)
        except CommError as error:
            results[rank] = error

    threads = [threading.Thread(target=target, args=(rank,)) for rank in range(len(listeners))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def total(group):
    small, large = np.ones(10), np.ones(100_000)
    group.allreduce(small)
    group.allreduce_start(large).wait()
    return small[0], large[-1], (set(group.hosts) == {0})


@pytest.mark.parametrize("size", [1, 2, 5])
def test_ranks_meet(size):
    listeners = [listen(rank) for rank in range(size)]
    assert meet(listeners, total) == [(size, size, True)] * size
    for one in listeners:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(one.address, timeout=1)


linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")


def families(group):
    return {link.sock.family for link in group.mesh.links()}


@linux
def test_ranks_of_one_host_meet_at_the_second_door():
    listeners = [listen(rank) for rank in range(3)]
    assert meet(listeners, families) == [{socket.AF_UNIX}] * 3
    assert [nearby.dial(one.address, 1) for one in listeners] == [None] * 3, "closed with the first"


def test_without_shared_memory_they_meet_at_the_first():
    listeners = [listen(rank) for rank in range(3)]
    assert meet(listeners, families, shared_memory=False) == [{socket.AF_INET}] * 3


@linux
def test_somebody_elses_second_door(monkeypatch):
    with listen(0, token=b"w" * 32) as stranger:
        dial = nearby.dial
        monkeypatch.setattr(nearby, "dial", lambda address, seconds: dial(stranger.address, seconds))
        assert meet([listen(rank) for rank in range(2)], families) == [{socket.AF_INET}] * 2
        assert stranger.rejected >= 1


@linux
def test_strangers_at_the_second_door_are_counted():
    first = listen(0)
    with nearby.dial(first.address, 1) as garbage:
        garbage.sendall(bytes(200))
        garbage.settimeout(5)
        with contextlib.suppress(ConnectionError):
            assert garbage.recv(1) == b""
    assert meet([first, listen(1)], families) == [{socket.AF_UNIX}] * 2
    assert first.rejected == 1


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


def test_strangers_are_counted_and_disturb_nobody():
    """While ranks meet: garbage, a wrong token, an old generation, and somebody who says nothing."""
    first = listen(0)
    stalled = [socket.create_connection(first.address) for _ in range(3)]
    with socket.create_connection(first.address) as garbage:
        garbage.sendall(b"GET / HTTP/1.1\r\nHost: somebody\r\nAccept: everything\r\n\r\n")
        garbage.settimeout(5)
        with contextlib.suppress(ConnectionError):
            assert garbage.recv(1) == b""
    for options in ({"token": b"w" * 32}, {"generation": 7}):
        with pytest.raises(HandshakeError):
            connect(listen(1, **options), [first.address, ("127.0.0.1", 1)], rank=1, deadline_s=0.1)
    assert first.rejected >= 3
    assert meet([first, listen(1)], total) == [(2, 2, True)] * 2
    for sock in stalled:
        sock.close()


def test_too_many_strangers_at_once(monkeypatch):
    monkeypatch.setattr(listener, "_AT_ONCE", 3)
    first = listen(0)
    stalled = [socket.create_connection(first.address) for _ in range(8)]
    assert meet([first, listen(1)], total) == [(2, 2, True)] * 2
    for sock in stalled:
        sock.close()


def test_a_link_is_no_stranger_though_its_thread_is_not_over(monkeypatch):
    monkeypatch.setattr(listener, "_AT_ONCE", 1)
    second = threading.Event()
    calls, admit = [], Listener._admit

    def lingering(self, *arguments):
        calls.append(self)
        if len(calls) == 2:
            second.set()
        admitted = admit(self, *arguments)
        assert second.wait(20)
        return admitted

    monkeypatch.setattr(Listener, "_admit", lingering)
    assert meet([listen(0), listen(1)], total) == [(2, 2, True)] * 2
    assert len(calls) == 2, "one for each channel"


def test_a_stranger_has_a_deadline(monkeypatch):
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 0.05)
    with listen(0) as first, socket.create_connection(first.address) as stalled:
        stalled.settimeout(5)
        assert stalled.recv(1) == b""
        assert first.wait({(1, 0)}, 0) == {(1, 0)}


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
