"""The measured side of `benchmarks.compression`: one rank of two."""

import time
from typing import Any

import numpy as np

from scaleml.compression import FP16, Codec, CodecContext, Int8, OneBit, PowerSGD, RandomK, TopK

from .allreduce_peers import WARM_UP, Scaleml
from .pairs import answer_requests, dial, seconds

CODECS: dict[str, Codec] = {
    repr(codec): codec for codec in (FP16(), Int8(), OneBit(), TopK(0.01), RandomK(0.01), PowerSGD(2))
}


class Rank:
    """One rank over TCP; it sums the same random numbers with each codec."""

    def __init__(self) -> None:
        self.base = Scaleml(shared_memory=False)
        self.listen, self.connect = self.base.listen, self.base.connect

    def answer(self, message: dict[str, Any]) -> Any:
        """Do what the driver asks."""
        return getattr(self, message["do"])(message)

    def nothing(self, message: dict[str, Any]) -> None:
        """Leave the machine to the other rank."""

    def sum(self, message: dict[str, Any]) -> tuple[list[float], float]:
        """Return the seconds of each all-reduce, and the bytes that this rank sent for one."""
        group, given, context = self.base.group, *_problem(message["items"], self.base.rank)
        codec = CODECS.get(message["codec"])
        x = self.base.array(message["items"])
        state: dict[str, Any] = {}

        def call() -> None:
            x[:] = given
            if codec is None:
                group.allreduce(x)
            else:
                codec.allreduce(x, 1.0, group, state, context)

        seconds(call, WARM_UP)
        group.meter.reset()
        times = seconds(call, message["calls"])
        return times, group.meter.bytes_sent / message["calls"]

    def code(self, message: dict[str, Any]) -> float:
        """Return the mean seconds of the processor that encoding and decoding took, which other load does not lengthen."""
        given, context = _problem(message["items"], self.base.rank)
        codec, lost, out = CODECS[message["codec"]], np.empty_like(given), np.empty_like(given)
        state: dict[str, Any] = {}

        def call() -> None:
            codec.decode(codec.encode(given, context, lost, state), out, context)

        seconds(call, WARM_UP)
        begin = time.thread_time()
        seconds(call, message["calls"])
        return (time.thread_time() - begin) / message["calls"]


def _problem(items: int, rank: int) -> tuple[np.ndarray, CodecContext]:
    """Return a gradient, and a context that takes it for one square matrix and a rest."""
    side = int(items**0.5)
    return np.random.default_rng(rank).standard_normal(items, dtype=np.float32), CodecContext(
        rank=rank, matrices=((0, side, side),)
    )


if __name__ == "__main__":
    pipe, peer = dial(), Rank()
    pipe.send({"rank": peer.base.rank})
    answer_requests(pipe, peer.answer)
