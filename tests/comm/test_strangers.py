"""Strangers at a listener: they get nothing, change nothing, cost no thread, and hold nobody up."""

import contextlib
import json
import secrets
import socket
import ssl
import sys
import threading

import pytest

import other_user
from meeting import TOKEN, families, listen, meet, total
from scaleml.clock import WALL
from scaleml.comm import HandshakeError, connect
from scaleml.comm.transport import handshake, listener, nearby, rendezvous
from scaleml.comm.transport.handshake import NONCE, Hello, Refused
from strangers import ANSWER, CALLS, Strangers

linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")


def ending(sock):
    """Wait until the other end hangs up, and return what it had said."""
    sock.settimeout(20)
    said = b""
    with contextlib.suppress(ConnectionError):
        while more := sock.recv(1000):
            said += more
    return said


def test_they_disturb_nobody_and_are_counted():
    """While ranks meet: garbage, a wrong token, an old generation, and somebody who says nothing."""
    first = listen(0)
    stalled = [socket.create_connection(first.address) for _ in range(3)]
    with socket.create_connection(first.address) as garbage:
        garbage.sendall(b"GET / HTTP/1.1\r\nHost: somebody\r\nAccept: everything\r\n\r\n")
        assert ending(garbage) == b""
    for options in ({"token": b"w" * 32}, {"generation": 7}):
        with pytest.raises(HandshakeError):
            connect(listen(1, **options), [first.address, ("127.0.0.1", 1)], rank=1, deadline_s=0.1)
    assert first.rejected >= 3
    assert meet([first, listen(1)], total) == [(2, 2, True)] * 2
    for sock in stalled:
        sock.close()


def test_thousands_come_and_no_thread():
    first, threads = listen(0), threading.active_count()
    held = []
    for _ in range(3000):
        held.append(socket.create_connection(first.address))
        if len(held) > 300:
            held.pop(0).close()
    assert ending(held[0]) == b"", "the oldest went for the newest"
    assert threading.active_count() == threads
    assert meet([first, listen(1)], total) == [(2, 2, True)] * 2
    for sock in held:
        sock.close()


@pytest.mark.parametrize("secure", [False, True])
def test_two_hundred_at_once_get_nothing_and_keep_nobody(secure, request):
    """Noise, wrong proofs, huge numbers, silence and slow words, before ranks meet and while they do."""
    tls = request.getfixturevalue("tls") if secure else (None, None)
    listeners = [listen(rank, tls=tls[0]) for rank in range(3)]
    addresses = [one.address for one in listeners]
    with Strangers(addresses) as strangers:
        assert meet(listeners, total, tls=tls[1], shared_memory=False) == [(3, 3, False)] * 3
    assert strangers.hung_up_on == CALLS
    assert max(map(len, strangers.told)) <= (7 if secure else ANSWER), "an alert, where there is TLS"
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


@pytest.mark.parametrize("secure", [False, True])
def test_they_never_shut_what_is_ours(secure, monkeypatch, request):
    """One more stranger than a door holds comes to each listener while its rank makes a group of its links."""
    tls = request.getfixturevalue("tls") if secure else (None, None)
    monkeypatch.setattr(listener, "_AT_ONCE", 1)
    listeners = [listen(rank, tls=tls[0]) for rank in range(2)]
    build = rendezvous.build

    def crowded(sockets, rank, *rest):
        with (
            socket.create_connection(listeners[rank].address) as older,
            socket.create_connection(listeners[rank].address),
        ):
            assert ending(older) == b""
            return build(sockets, rank, *rest)

    monkeypatch.setattr(rendezvous, "build", crowded)
    assert meet(listeners, total, tls=tls[1]) == [(2, 2, True)] * 2
    assert all(one.rejected for one in listeners)


@pytest.mark.parametrize("said", [b"", handshake.MAGIC, None])
def test_they_have_a_deadline(said, monkeypatch):
    """Who says nothing, who stops in the middle, and who says hello and then proves nothing."""
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 0.05)
    hello = handshake._HELLO.pack(handshake.MAGIC, *Hello(1, 0, 1, 0, 0), bytes(NONCE))
    with listen(0) as first, socket.create_connection(first.address) as stalled:
        stalled.sendall(hello if said is None else said)
        answer = ending(stalled)
        assert len(answer) == (NONCE + 32 if said is None else 0)
        assert first.wait({(1, 0)}, 0) == {(1, 0)}
        assert first.rejected == 1


class Tape:
    """A socket that keeps what is sent through it."""

    def __init__(self, sock):
        self.sock, self.sent = sock, []

    def sendall(self, data):
        self.sent.append(data)
        self.sock.sendall(data)

    def __getattr__(self, name):
        return getattr(self.sock, name)


def test_what_was_said_once_does_not_count_again():
    hello = Hello(1, 0, 1, 0, 0)
    with listen(0) as first:
        with socket.create_connection(first.address) as own:
            tape = Tape(own)
            handshake.dial(tape, TOKEN, hello, WALL.now() + 20)
        assert first.wait({(1, 0)}, 0) == set()
        first.take()[1, 0].close()
        with socket.create_connection(first.address) as replayed:
            replayed.sendall(b"".join(tape.sent))
            assert len(ending(replayed)) == NONCE + 32, "a nonce and a proof, and no welcome"
        assert first.wait({(1, 0)}, 0) == {(1, 0)}


def test_a_listener_that_knows_no_token_is_found_out():
    """Also one that sends back what it is sent."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        echo = threading.Thread(target=lambda: theirs.sendall((theirs.recv(1000) * 3)[: NONCE + 32]))
        echo.start()
        with pytest.raises(Refused, match="does not know this run's token"):
            handshake.dial(ours, TOKEN, Hello(1, 0, 1, 0, 0), WALL.now() + 20)
        echo.join()


def context(certificate=None):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if certificate:
        made.load_cert_chain(*certificate)
    return made


@pytest.mark.parametrize("what", ["in the clear", "no certificate", "another authority's"])
def test_under_tls_they_need_our_certificate(what, tls, tmp_path):
    from certificates import Authority

    with listen(0, tls=tls[0]) as first, socket.create_connection(first.address) as plain:
        stranger = plain
        with contextlib.suppress(OSError):  # TLS 1.3 says on reading that a certificate is refused
            if what != "in the clear":
                theirs = Authority(tmp_path).certify("stranger") if what.startswith("another") else None
                stranger = context(theirs).wrap_socket(plain)
            stranger.sendall(handshake._HELLO.pack(handshake.MAGIC, *Hello(1, 0, 1, 0, 0), secrets.token_bytes(NONCE)))
            assert stranger.recv(1) == b""
        stranger.close()
        assert first.wait({(1, 0)}, 0) == {(1, 0)}
        assert not first.near


# The second door.


@linux
def test_strangers_at_the_second_door_are_counted():
    first = listen(0)
    with nearby.dial(first.address, TOKEN, 1) as garbage:
        garbage.sendall(bytes(200))
        assert ending(garbage) == b""
    assert meet([first, listen(1)], families) == [{socket.AF_UNIX}] * 2
    assert first.rejected == 1


@linux
def test_its_name_is_made_of_the_token():
    names = {nearby._name(("127.0.0.1", 7), token) for token in (TOKEN, b"w" * 32)}
    assert len(names) == 2
    assert not any("127.0.0.1" in name or ":7" in name for name in names)


@linux
def test_somebody_elses_second_door(monkeypatch):
    with listen(0, token=b"w" * 32) as stranger:
        dial = nearby.dial
        monkeypatch.setattr(
            nearby, "dial", lambda address, token, seconds: dial(stranger.address, stranger.token, seconds)
        )
        assert meet([listen(rank) for rank in range(2)], families) == [{socket.AF_INET}] * 2
        assert stranger.rejected >= 1


CROWD = """
names = [line.split()[-1] for line in open("/proc/net/unix") if line.rstrip().endswith(tuple(json.loads(sys.argv[1])))]
print(len(names), flush=True)
held = []
for name in names * 200:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        sock.connect("\\0" + name[1:])
        held.append(sock)
    except OSError:
        pass
print("came", flush=True)
sys.stdin.readline()
said = 0
for sock in held:
    sock.settimeout(20)
    try:
        said += len(sock.recv(100))
    except ConnectionError:
        pass
print(said)
"""


@linux
@other_user.needs_root
@pytest.mark.root
def test_another_user_who_crowds_the_second_door():
    """Its name can be read in /proc/net/unix, and 200 come before a rank does; they are not even listened to."""
    listeners = [listen(rank) for rank in range(2)]
    names = [nearby._name(one.address, TOKEN)[1:] for one in listeners]
    with other_user.start("json, socket, sys", CROWD, json.dumps(names)) as crowd:
        assert [crowd.stdout.readline() for _ in range(2)] == ["2\n", "came\n"]
        results = meet(listeners, families)
        out, err = crowd.communicate("\n", timeout=30)
    assert results == [{socket.AF_UNIX}] * 2
    assert out == "0\n", err
    assert listeners[0].rejected == 200


SQUAT = """
doors = []
for name in sys.argv[1:]:
    doors.append(socket.socket(socket.AF_UNIX))
    doors[-1].bind("\\0" + name)
    doors[-1].listen()
print("listening", flush=True)
sys.stdin.readline()
heard = 0
for door in doors:
    door.setblocking(False)
    while True:
        try:
            sock, _ = door.accept()
        except BlockingIOError:
            break
        sock.settimeout(20)
        heard += len(sock.recv(100))
print(heard)
"""


@linux
@other_user.needs_root
@pytest.mark.root
def test_another_user_behind_the_second_door(monkeypatch):
    """Should a name ever be guessed: who listens there is not spoken to, and the first door serves at once."""
    monkeypatch.setattr(nearby, "_name", lambda address, token: "\0scaleml-test-{}:{}".format(*address))
    monkeypatch.setattr(nearby, "listen", lambda address, token: None)
    listeners = [listen(rank) for rank in range(2)]
    names = [nearby._name(one.address, TOKEN)[1:] for one in listeners]
    with other_user.start("socket, sys", SQUAT, *names) as squatter:
        assert squatter.stdout.readline() == "listening\n"
        results = meet(listeners, families, deadline_s=listener.HANDSHAKE_SECONDS / 2)
        out, err = squatter.communicate("\n", timeout=30)
    assert results == [{socket.AF_INET}] * 2
    assert out == "0\n", err
