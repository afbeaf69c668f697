"""Hosts on one machine: network namespaces with a memory of their own, on one switch, with a speed that can be set.

For root on Linux with iproute2. A host is a process that sleeps in its namespaces; what is started on it lives there too. When the
last of them is gone the kernel removes the namespaces, the interfaces and the memory; `Hosts` itself removes the switch.
"""

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

# Before the shell sleeps: its own /dev/shm, so that nobody mistakes another host's memory for his own.
_HOST = "mount -t tmpfs -o size=512m tmpfs /dev/shm && ip link set lo up && echo ready && exec sleep infinity"
SUBNET = "10.213.{}"
_NUMBERS = itertools.count()


def missing() -> str:
    """Return why this machine can have no such hosts, or nothing."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root"
    for program in ("ip", "tc", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"needs the program {program}"
    name = f"sml{os.getpid() % 100_000}t"
    link = f"ip link add {name} type bridge && ip link add {name}a type veth peer {name}b"
    limit = f"tc qdisc add dev {name}a root tbf rate 100mbit burst 32kb latency 50ms"
    for trial in (_HOST.replace("exec sleep infinity", "true"), f"{link} && {limit}"):
        command = ["unshare", "--net", "--mount", "sh", "-c", trial]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode:
            return f"{' '.join(command)} is refused here: {done.stderr.strip()[-200:]}"
    return ""


class Hosts:
    """Hosts 0, 1, ... on one switch; the caller's own process is on it, too.

    Parameters
    ----------
    count : int
        How many.

    Attributes
    ----------
    addresses : list of str
        One a host.
    gateway : str
        The caller's own.
    """

    def __init__(self, count: int) -> None:
        number = next(_NUMBERS)
        self._switch = f"sml{os.getpid() % 100_000}n{number}"
        subnet = SUBNET.format((os.getpid() + number) % 250)
        self.gateway = f"{subnet}.254"
        self.addresses = [f"{subnet}.{host + 1}" for host in range(count)]
        self._hosts: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        try:
            _run("ip", "link", "add", self._switch, "type", "bridge")
            _run("ip", "addr", "add", f"{self.gateway}/24", "dev", self._switch)
            _run("ip", "link", "set", self._switch, "up")
            for host, address in enumerate(self.addresses):
                sleeper = subprocess.Popen(
                    ["unshare", "--net", "--mount", "setpriv", "--pdeathsig", "KILL", "sh", "-c", _HOST],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                self._hosts.append(sleeper)
                assert sleeper.stdout is not None
                if sleeper.stdout.readline() != "ready\n":
                    raise RuntimeError(f"host {host} did not come up")
                port = self._port(host)
                _run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(sleeper.pid))
                _run("ip", "link", "set", port, "master", self._switch, "up")
                for command in (f"ip addr add {address}/24 dev eth0", "ip link set eth0 up"):
                    _run(*self.command(host, command.split()))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for sleeper in self._hosts:
            sleeper.kill()
            sleeper.communicate()
        for host in range(len(self._hosts)):
            with contextlib.suppress(RuntimeError):
                _run("ip", "link", "del", self._port(host))
        with contextlib.suppress(RuntimeError):
            _run("ip", "link", "del", self._switch)

    def command(self, host: int, command: Sequence[str]) -> list[str]:
        """Return the command line that runs `command` on a host."""
        return ["nsenter", "--target", str(self._hosts[host].pid), "--net", "--mount", *command]

    def limit(self, megabits: float | None) -> None:
        """Let each host send and receive at most so many megabits a second; None for as fast as it goes."""
        for host in range(len(self.addresses)):
            for where, device in (([], self._port(host)), (self.command(host, []), "eth0")):
                if megabits is None:
                    with contextlib.suppress(RuntimeError):
                        _run(*where, "tc", "qdisc", "del", "dev", device, "root")
                else:
                    burst = max(16, int(megabits))  # kB: what comes in some milliseconds
                    shape = f"rate {megabits}mbit burst {burst}kb latency 200ms".split()
                    _run(*where, "tc", "qdisc", "replace", "dev", device, "root", "tbf", *shape)

    def bytes_sent(self, host: int) -> int:
        """Return how many bytes a host has sent so far."""
        return int(Path(f"/sys/class/net/{self._port(host)}/statistics/rx_bytes").read_text())

    def _port(self, host: int) -> str:
        return f"{self._switch}p{host}"


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
