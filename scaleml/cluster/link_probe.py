"""Link probe: pairs of workers linked as ranks are, for a moment, to see who reaches whom, how soon and how fast."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

import numpy as np
from distributed import Client, Worker

from scaleml import comm
from scaleml.clock import WALL
from scaleml.cluster import calls, config
from scaleml.cluster.embedded import is_embedded
from scaleml.cluster.endpoint import host_of
from scaleml.comm import CommError, Communicator, Listener
from scaleml.telemetry.links import Link, Links

MOST: Final = 24
"""Workers between which links are measured, of more than these some of each host."""
CONNECT: Final = 1.5
"""Seconds for a link to stand."""
_CALL: Final = 5.0
_BUDGET: Final = 20.0
"""Seconds for all links: where many are blocked, the rest stays unknown."""
_FEWEST: Final = 10
_PINGS: Final = 50
_PING_SECONDS: Final = 0.02
_FIRST: Final = 256 << 10
_LARGEST: Final = 4 << 20
_SEND_SECONDS: Final = 0.002
_SLOW: Final = 0.1
"""Seconds from which one try is enough."""
_TRIES: Final = 3
"""Of each size: the fastest counts, for whoever waits for a core is no slow link."""

Address = tuple[str, int]


@dataclass(frozen=True)
class End:
    """One end of a link to be: rank 0 listens, rank 1 dials."""

    number: int
    rank: int
    token: bytes
    port_range: tuple[int, int] | None
    near: bool
    """Whether all are processes of one user on one host: see `scaleml.cluster.endpoint.EndpointRequest`."""
    shared_memory: bool


class Measured(TypedDict):
    """What rank 0 found; plain values."""

    latency: float
    bandwidth: float
    same_host: bool
    error: str


_open: Final[dict[int, tuple[End, Listener]]] = {}


# On the client.


def probe(client: Client, hosts: Mapping[str, str]) -> Links:
    """Link each two workers for a moment, and return what was seen.

    On each host one pair is measured at a time: together they would share its cores. Between hosts each is dialled both ways.

    Parameters
    ----------
    client : Client
        The cluster.
    hosts : mapping
        The host of each worker, by address.
    """
    workers = some(hosts)
    links: list[Link] = []
    until = WALL.now() + _BUDGET
    for pairs in rounds(workers, hosts):
        if WALL.now() > until:
            break
        links += calls.within(client, 3 * _CALL, _measure(client, pairs), "measuring links")
    both: dict[frozenset[str], list[Link]] = {}
    for link in links:
        both.setdefault(frozenset(link.workers), []).append(link)
    kept = [[link for link in pair if link.error] or pair[:1] for pair in both.values()]
    return Links(tuple(workers), tuple(link for pair in kept for link in pair))


def some(hosts: Mapping[str, str], most: int = MOST) -> list[str]:
    """Return at most so many workers, of each host alike.

    >>> some({"a": "1", "b": "1", "c": "1", "d": "2"}, 2)
    ['a', 'd']
    """
    turn: dict[str, int] = {}
    order = []
    for address, host in hosts.items():
        turn[host] = turn.get(host, 0) + 1
        order.append((turn[host], address))
    chosen = {address for _, address in sorted(order)[:most]}
    return [address for address in hosts if address in chosen]


def rounds(workers: Sequence[str], hosts: Mapping[str, str]) -> Iterator[list[tuple[str, str]]]:
    """Yield lists of pairs, listener and dialler, in which no host is twice; pairs between hosts come both ways.

    >>> list(rounds(["a", "b", "c"], {"a": "1", "b": "1", "c": "2"}))
    [[('a', 'b')], [('a', 'c')], [('b', 'c')], [('c', 'a')], [('c', 'b')]]
    """
    left = [(a, b) for i, a in enumerate(workers) for b in workers[i + 1 :]]
    left += [(b, a) for a, b in left if hosts[a] != hosts[b]]
    while left:
        used: set[str] = set()
        chosen, later = [], []
        for a, b in left:
            if used & {hosts[a], hosts[b]}:
                later.append((a, b))
            else:
                used |= {hosts[a], hosts[b]}
                chosen.append((a, b))
        yield chosen
        left = later


async def _measure(client: Client, pairs: Sequence[tuple[str, str]]) -> list[Link]:
    ends: dict[str, End] = {}
    for pair in pairs:
        token, number = secrets.token_bytes(32), secrets.randbits(63)
        for rank, address in enumerate(pair):
            ends[address] = End(number, rank, token, config.port_range(), is_embedded(client), config.shared_memory())
    try:
        opened = await asyncio.wait_for(_on(client, open_end, ends), _CALL)
        ready = [pair for pair in pairs if all(isinstance(opened.get(worker), tuple) for worker in pair)]
        books = {worker: (ends[worker].number, [opened[end] for end in pair]) for pair in ready for worker in pair}
        told = await asyncio.wait_for(_on(client, measure_link, books), _CALL) if books else {}
    except TimeoutError:
        return [Link(pair, "", error=f"one of them did not answer within {_CALL:g} s") for pair in pairs]
    return [_link(pair, opened, told) for pair in pairs]


async def _on(client: Client, function: Callable[..., object], arguments: Mapping[str, object]) -> dict[str, object]:
    """Call a function on each worker with its own argument: by what address the scheduler knows it, it may not know."""
    asked = (calls.on_worker(client, address, function, argument) for address, argument in arguments.items())
    return dict(zip(arguments, await asyncio.gather(*asked, return_exceptions=True), strict=True))


def _link(pair: tuple[str, str], opened: Mapping[str, object], told: Mapping[str, object]) -> Link:
    address = opened.get(pair[0])
    at = "{}:{}".format(*address) if isinstance(address, tuple) else ""
    errors = [str(opened.get(worker)) for worker in pair if not isinstance(opened.get(worker), tuple)]
    found: dict[str, object] = {}
    for worker in pair[::-1]:  # who listens has measured, who dials knows best why it could not
        answer = told.get(worker)
        if isinstance(answer, dict):
            errors += [answer["error"]] if answer["error"] else []
            found = answer
        elif not errors:
            errors.append(str(answer or "it left the cluster"))
    if errors:
        return Link(pair, at, error=errors[0])
    return Link(pair, at, found["latency"], found["bandwidth"], found["same_host"])  # type: ignore[arg-type]


# On the workers.


def open_end(end: End, dask_worker: Worker) -> Address:
    """Open this worker's end of a link, and return where it listens."""
    security = dask_worker.security
    tls = security.get_listen_args("worker").get("ssl_context") if dask_worker.address.startswith("tls") else None
    listener = Listener(
        host_of(dask_worker.address),
        token=end.token,
        run=end.number,
        generation=0,
        rank=end.rank,
        port_range=end.port_range,
        tls=tls,
        near=end.near or tls is None,
    )
    _open[_key(end.number, dask_worker)] = end, listener
    dask_worker.loop.call_later(2 * _CALL, _close, _key(end.number, dask_worker))
    return listener.address


async def measure_link(ours: tuple[int, list[Address]], dask_worker: Worker) -> Measured:
    """Link this worker's end to the other one, and measure; the worker's event loop goes on meanwhile."""
    number, book = ours
    return await asyncio.to_thread(_linked, _key(number, dask_worker), book, dask_worker)


def _key(number: int, worker: Worker) -> int:
    return hash((number, worker.address))  # workers may be threads of one process


def _close(key: int) -> None:
    found = _open.pop(key, None)
    if found is not None:
        found[1].close()


def _linked(key: int, book: list[Address], worker: Worker) -> Measured:
    end, listener = _open.pop(key)
    tls = worker.security.get_connection_args("worker")["ssl_context"] if worker.address.startswith("tls") else None
    try:
        with comm.connect(
            listener,
            book,
            rank=end.rank,
            deadline_s=CONNECT,
            timeout=CONNECT,
            tls=tls,
            scratch=worker.local_directory,
            shared_memory=end.shared_memory,
        ) as group:
            latency, bandwidth = measure(group)
            return {
                "latency": latency,
                "bandwidth": bandwidth,
                "same_host": group.hosts[0] == group.hosts[1],
                "error": "",
            }
    except (CommError, OSError, ValueError) as error:
        return {"latency": 0.0, "bandwidth": 0.0, "same_host": False, "error": str(error)}


def measure(group: Communicator) -> tuple[float, float]:
    """Return latency in seconds and bandwidth in bytes a second between two ranks; rank 1 only answers.

    Returns
    -------
    latency : float
        Half the median of some round trips of a message of 8 bytes.
    bandwidth : float
        Of one long message, the fastest of three: as many bytes, up to 4 MB, as take at least 2 ms.
    """
    word, block, other = np.zeros(1, np.int64), np.zeros(_LARGEST, np.uint8), 1 - group.rank
    if group.rank == 1:
        while True:
            size = int(group.recv(other, out=word).array[0])
            if size > 0:
                group.recv(other, out=block[:size])
            group.send(word, other)
            if size < 0:
                return 0.0, 0.0

    def ask(size: int) -> float:
        began = WALL.now()
        word[0] = size
        group.send(word, other)
        if size > 0:
            group.send(block[:size], other)
        group.recv(other, out=word)
        return WALL.now() - began

    def fastest_of(size: int) -> float:
        tries = [ask(size)]
        while len(tries) < _TRIES and tries[0] < _SLOW:
            tries.append(ask(size))
        return min(tries)

    trips: list[float] = []
    while len(trips) < _FEWEST or (len(trips) < _PINGS and sum(trips) < _PING_SECONDS):
        trips.append(ask(0))
    trip = float(np.median(trips))
    size = _FIRST
    while (taken := fastest_of(size)) < _SEND_SECONDS and size < _LARGEST:
        size *= 4
    ask(-1)
    fastest = min(trips)
    return trip / 2, size / (taken - fastest if taken > 2 * fastest else taken)
