"""Ways to all-reduce against the direct one, between hosts of network namespaces, by ranks, length and speed.

Needs root on Linux. Two ranks on a host share its memory and its network. Every figure is the median call of the slowest rank; the ranks of
all hosts live on the same cores, so that without a limit it is the processor that is measured.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .hosts import Hosts, missing
from .report import ONE_THREAD, Row, compare
from .report import missing as not_here

SIZES = {"4 KB": (1_024, 40), "256 KB": (65_536, 12), "4 MB": (1_048_576, 3)}
PLACES: tuple[tuple[int, ...], ...] = ((1, 1, 1), (1, 1, 1, 1), (2, 2))
SPEEDS: tuple[float | None, ...] = (None, 1000, 100)
WAYS = ("ring", "halving", "hierarchical")
RANK = "benchmarks.topologies_peers"


def measure(rounds: int) -> list[Row]:
    """Measure every way in every place."""
    why = missing()
    if why:
        return [not_here("all-reduce between hosts", "direct", None, why)]
    return list(itertools.chain.from_iterable(_place(place, rounds) for place in PLACES))


def _place(place: Sequence[int], rounds: int) -> Iterator[Row]:
    ways = ("direct", *(way for way in WAYS if way != "hierarchical" or max(place) > 1))
    with Hosts(len(place)) as hosts, _ranks(hosts, place) as ask:
        for speed in SPEEDS:
            hosts.limit(speed)
            for size, (items, calls) in SIZES.items():
                times: dict[str, list[float]] = {way: [] for way in ways}
                for turn in range(rounds):
                    for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
                        answers = ask({"way": way, "items": items, "calls": calls})
                        times[way].append(1e3 * max(answers))
                where = f"{'+'.join(map(str, place))} ranks, {size}, {f'{speed:g} Mbit/s' if speed else 'no limit'}"
                for way in ways[1:]:
                    yield compare(f"{way}: {where}", "direct", times[way], times["direct"], "ms", None, inverse=True)


@contextlib.contextmanager
def _ranks(hosts: Hosts, place: Sequence[int]) -> Iterator[Any]:
    """Start the ranks; yield what asks all of them something."""
    homes = [host for host, count in enumerate(place) for _ in range(count)]
    processes: list[subprocess.Popen[str]] = []
    try:
        for rank, host in enumerate(homes):
            command = hosts.command(host, [sys.executable, "-m", RANK, str(rank), hosts.addresses[host]])
            pipe, environment = subprocess.PIPE, {**os.environ, **ONE_THREAD}
            processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment))

        def ask(message: Any) -> list[Any]:
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(json.dumps(message) + "\n")
                process.stdin.flush()
            return [_answer(process) for process in processes]

        ask([_answer(process) for process in processes])
        yield ask
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _answer(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a rank ended: see above")
    return json.loads(line)
