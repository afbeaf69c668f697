"""Other users of the machine at the embedded cluster: they find doors, and all are shut."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import threading
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client
from distributed.security import Security

import other_user
import scaleml
from cluster.conftest import Problem
from cluster.harness import running, sockets_of_links
from embedded import dask_processes, embedded, listening
from scaleml.cluster import embedded as clusters
from scaleml.cluster import handshake_limit
from scaleml.cluster.certificate import security_settings, write_certificate


@pytest.fixture(scope="module")
def client() -> Client:
    return embedded(2)


def folder() -> Path:
    assert clusters._own.cluster is not None
    return Path(clusters._own.cluster.folder.path)


ATTACK = """
given = json.loads(sys.stdin.read())
done = []  # what went well: nothing should

def attempt(what, action):
    try:
        answer = action()
    except (OSError, ValueError):
        return
    done.append(f"{what}: {answer!r:.200}")

def talk(port, context):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        with context.wrap_socket(plain) if context else plain as sock:
            sock.sendall(b"GET /json/identity.json HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
            said = b""
            while more := sock.recv(1000):
                said += more
    if not said or said[:2] == b"\\x15\\x03":  # an alert of TLS
        raise ValueError
    return said

def context(certificate):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if certificate:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(certificate)
            file.flush()
            made.load_cert_chain(file.name)
    return made

for port in given["ports"]:
    for name, how in (("plain", None), ("TLS", context(None)), ("own certificate", context(given["certificate"]))):
        attempt(f"{name} at {port}", lambda: talk(port, how))
for pid in given["pids"]:
    attempt(f"kill {pid}", lambda: os.kill(pid, 0))
    for name in ("environ", "maps", "mem", "fd/0"):
        attempt(f"{name} of {pid}", lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
    arguments = open(f"/proc/{pid}/cmdline").read()
    if "KEY" in arguments:
        done.append(arguments)
attempt("list", lambda: os.listdir(given["folder"]))
for path in given["files"]:
    attempt(f"read {path}", lambda: open(path, "rb").read(1))
    attempt(f"write {path}", lambda: open(path, "r+b"))
    attempt(f"remove {path}", lambda: os.unlink(path))
print(json.dumps(done))
"""


@other_user.needs_root
@pytest.mark.root
def test_another_user_gets_nothing(client: Client, problem: Problem, tmp_path: Path) -> None:
    """While a run is on: all ports, all processes, the cluster's folder, and all files that the run keeps in memory."""
    write_certificate(tmp_path / "own.pem")
    with running(**problem.endless(workers=2)) as run:
        processes = list(dask_processes())
        own = {str(process.pid) for process in [psutil.Process(), *processes]}
        files = [path for path in Path("/dev/shm").iterdir() if own & set(re.split(r"\D", path.name))]
        given = {
            "ports": [port for _, port in listening(processes)],
            "pids": [os.getpid(), *(process.pid for process in processes)],
            "folder": str(folder()),
            "files": [str(path) for path in (*files, *folder().rglob("*"))],
            "certificate": (tmp_path / "own.pem").read_text(),
        }
        assert len(given["ports"]) == 5
        assert files
        with other_user.start("json, os, socket, ssl, sys, tempfile", ATTACK) as attacker:
            out, err = attacker.communicate(json.dumps(given), timeout=60)
        assert run.state == "running"
    assert json.loads(out or "0") == [], err
    problem.check(scaleml.train(**problem.settings(workers=2)).params, shards=2)


def test_its_key_is_in_one_private_file(client: Client) -> None:
    assert folder().stat().st_mode & 0o777 == 0o700
    files = [path for path in folder().iterdir() if path.is_file()]
    keys = [path for path in files if b"PRIVATE KEY" in path.read_bytes()]
    assert [path.name for path in keys] == ["certificate.pem"]
    assert keys[0].stat().st_mode & 0o777 == 0o600
    for process in dask_processes():
        assert "PRIVATE KEY" not in " ".join([*process.cmdline(), *process.environ().values()])


def test_a_client_needs_the_certificate(client: Client, tmp_path: Path) -> None:
    address = client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    with pytest.raises(OSError, match=r"reset|closed|SSL|Timed out"):
        Client(address.replace("tls", "tcp"), timeout=0.3, set_as_default=False)
    write_certificate(tmp_path / "other.pem")
    other = Security(**security_settings(tmp_path / "other.pem"))
    with pytest.raises(OSError, match="certificate does not match"):
        Client(address, security=other, timeout=0.3, set_as_default=False)
    with Client(address, security=client.security, set_as_default=False) as again:
        assert len(again.run(os.getpid)) == 2


def test_who_shows_no_certificate_makes_way(client: Client) -> None:
    """More connections than a process holds, none of which says anything."""
    port = int(client.scheduler.address.rsplit(":", 1)[1])
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            for _ in range(handshake_limit.AT_ONCE + 1)
        ]
        silent[0].settimeout(20)
        assert silent[0].recv(1) == b""
        with Client(client.scheduler.address, security=client.security, set_as_default=False) as again:
            assert len(again.run(os.getpid)) == 2
    assert "handshake failed" not in (folder() / "scheduler.log").read_text()


@pytest.mark.parametrize(("shared", "kind"), [(True, "socket AF_UNIX"), (False, r"SSLSocket TLSv1\.3")])
def test_its_ranks_keep_their_unix_sockets(client: Client, problem: Problem, shared: bool, kind: str) -> None:
    with dask.config.set({"scaleml.comm.shared-memory": shared}), running(**problem.endless(workers=2)):
        kinds = client.run(sockets_of_links)
    assert len(kinds) == 2
    assert all(of_a_worker and all(re.fullmatch(kind, one) for one in of_a_worker) for of_a_worker in kinds.values())


def test_a_certificate_passes_the_strictest_checks(tmp_path: Path) -> None:
    """Those that Python asks for by default from version 3.13 on."""
    path = tmp_path / "certificate.pem"
    write_certificate(path)
    contexts = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(path)
        context.load_verify_locations(path)
        contexts.append(context)
    ours, theirs = socket.socketpair()
    said: list[bytes] = []

    def serve() -> None:
        with contexts[0].wrap_socket(theirs, server_side=True) as server:
            said.append(server.recv(5))

    server = threading.Thread(target=serve)
    server.start()
    with contexts[1].wrap_socket(ours) as sock:
        sock.sendall(b"hello")
    server.join()
    assert said == [b"hello"]
    with pytest.raises(FileExistsError):
        write_certificate(path)
