"""Codecs: how fast they encode and decode 4 MB, and what they make of an all-reduce of 4 MB over TCP.

Two processes of one host, whose loopback is faster than most networks: there a codec costs time. The note says on which
links it pays: where the bytes it saves would have taken longer than its arithmetic. Encoding includes keeping what was
lost, and is measured in seconds of the processor. Dense and coded all-reduces take turns; figures are medians over rounds.
"""

import itertools
import statistics
from collections.abc import Iterator

from .compression_peers import CODECS
from .pairs import pair
from .report import Row, alone, compare

PEERS = "benchmarks.compression_peers"
DENSE = "the dense all-reduce"
ITEMS, CALLS = 1_048_576, 10
FLOOR = 300.0
"""MB/s that the cheap codecs must beat."""
CHEAP = ("FP16()", "Int8()")


def measure(rounds: int) -> list[Row]:
    """Measure every codec in `rounds` rounds."""
    alone_: dict[str, list[float]] = {name: [] for name in CODECS}
    together: dict[str, list[float]] = {name: [] for name in (DENSE, *CODECS)}
    sent: dict[str, float] = {}
    with pair(PEERS, "tcp") as both:
        both.ask({"do": "connect", "book": both.ask({"do": "listen"})})
        for _, name in itertools.product(range(rounds), together):
            question = {"codec": None if name == DENSE else name, "items": ITEMS, "calls": CALLS}
            times, share = zip(*both.ask({"do": "sum", **question}), strict=True)
            together[name].append(statistics.median(itertools.chain(*times)))
            sent[name] = max(share)
            if name != DENSE:  # one process at a time, as a rank alone
                idle = {"do": "nothing"}
                alone_[name].append(both.ask_each([{"do": "code", **question}, idle])[0])
    return list(_rows(alone_, together, sent))


def _rows(alone_: dict[str, list[float]], together: dict[str, list[float]], sent: dict[str, float]) -> Iterator[Row]:
    for name, seconds in alone_.items():
        speeds = [4 * ITEMS / 1e6 / each for each in seconds]
        what = f"encode and decode 4 MB, {name}"
        yield compare(what, "a floor", speeds, [FLOOR] * len(speeds), "MB/s", 1 if name in CHEAP else None)
    for name in alone_:
        a, b = ([1e6 * seconds for seconds in together[key]] for key in (name, DENSE))
        what = f"all-reduce of 4 MB over TCP, {name}"
        yield compare(what, DENSE, a, b, "us", inverse=True, note=_note(name, together, sent))


def _note(name: str, together: dict[str, list[float]], sent: dict[str, float]) -> str:
    share = f"{100 * sent[name] / sent[DENSE]:.1f}% of its bytes"
    longer = statistics.median(together[name]) - statistics.median(together[DENSE])
    if longer <= 0:
        return f"{share}; pays even here"
    return f"{share}; pays below {8e-6 * (sent[DENSE] - sent[name]) / longer:,.0f} Mbit/s"


if __name__ == "__main__":
    alone(measure, __doc__)
