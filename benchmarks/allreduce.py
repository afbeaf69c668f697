"""All-reduce between two processes of one host: scaleml.comm against PyTorch's gloo and MPI (mpich).

All pairs live at once and take turns, so that whatever else the machine does meets them alike. Arrays are float32 and
summed in place; scaleml's lie where its models write their gradients, in a group's buffer. Every figure is the median
over rounds of the median call of a round, over both ranks; each pair first sums random numbers that are checked.
"""

import contextlib
import itertools
import shutil
import statistics
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from .pairs import Pair, pair
from .report import Row, alone, compare, missing

PEERS = "benchmarks.allreduce_peers"
# items of float32, and calls in a round
SIZES = {"4 KB": (1_024, 300), "4 MB": (1_048_576, 30), "40 MB": (10_485_760, 6)}
GLOO, MPI = "gloo (PyTorch)", "MPI (mpich)"
HINTS = {GLOO: "pip install torch", MPI: "pip install mpich mpi4py"}
# what of ours, against whom: the targets by size
TARGETS: dict[tuple[str, str], dict[str, float | None]] = {
    ("shared memory", GLOO): {"4 KB": 20, "4 MB": 6, "40 MB": 3},
    ("shared memory", MPI): {"4 KB": None, "4 MB": 2, "40 MB": 2},
    ("TCP, sums on", GLOO): {"4 KB": 10, "4 MB": 1.5, "40 MB": 1.2},
}


def measure(rounds: int) -> list[Row]:
    """Measure all pairs in `rounds` rounds."""
    times: dict[tuple[str, str], list[float]] = {}
    with contextlib.ExitStack() as stack:
        pairs = {kind: stack.enter_context(opened) for kind, opened in _pairs().items()}
        for kind, both in pairs.items():
            for size, (items, _) in SIZES.items():
                if not all(both.ask({"do": "check", "items": items})):
                    raise RuntimeError(f"{kind}: the sum of {size} is wrong")
        order = list(pairs)
        for turn in range(rounds):
            for size, (items, calls) in SIZES.items():
                for kind in order[turn % len(order) :] + order[: turn % len(order)]:
                    answers = pairs[kind].ask({"do": "time", "items": items, "calls": calls})
                    times.setdefault((kind, size), []).append(statistics.median(itertools.chain(*answers)))
    return list(_rows(times))


def _rows(times: dict[tuple[str, str], list[float]]) -> Iterator[Row]:
    for (mine, peer), targets in TARGETS.items():
        for size, target in targets.items():
            what = f"all-reduce of {size}, {mine}"
            if (peer, size) not in times:
                yield missing(what, peer, target, HINTS[peer])
                continue
            note = "" if target else "MPI spins: while it waits it takes a core"
            a, b = ([1e6 * seconds for seconds in times[key, size]] for key in (mine, peer))
            yield compare(what, peer, a, b, "us", target, inverse=True, note=note)


def _pairs() -> dict[str, contextlib.AbstractContextManager[Pair]]:
    pairs: dict[str, contextlib.AbstractContextManager[Pair]] = {
        "shared memory": _ours("shared"),
        "TCP, sums on": _ours("tcp"),
    }
    if find_spec("torch"):
        pairs[GLOO] = _gloo()
    if find_spec("mpi4py") and (mpiexec := _mpiexec()):
        pairs[MPI] = pair(PEERS, "mpi", command=[mpiexec, "-n", "2"])
    return pairs


@contextlib.contextmanager
def _ours(kind: str) -> Iterator[Pair]:
    with pair(PEERS, kind) as both:
        both.ask({"do": "connect", "book": both.ask({"do": "listen"})})
        yield both


@contextlib.contextmanager
def _gloo() -> Iterator[Pair]:
    with pair(PEERS, "gloo") as both:
        (port, _) = both.ask({"do": "port"})
        both.ask({"do": "connect", "port": port})
        yield both


def _mpiexec() -> str | None:
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.is_file() else shutil.which("mpiexec")


if __name__ == "__main__":
    alone(measure, __doc__)
