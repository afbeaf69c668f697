"""A fuzzer on what reads frames: it gives what was sent, or says that something is wrong, and takes no memory for promises."""

from __future__ import annotations

import itertools
import resource
import socket
import sys
from contextlib import closing

import numpy as np

from scaleml.comm.errors import CorruptFrame
from scaleml.comm.meter import Meter
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.context import RankContext
from scaleml.comm.transport.frame import (
    COLLECTIVE,
    CONTROL,
    HEADER,
    MESSAGE,
    SUMMED,
    encode,
    first_number,
    next_number,
    numbered,
)
from scaleml.comm.transport.link import Link, LinkClosed
from scaleml.comm.transport.payload_sum import payload_sum

RUN, GENERATION = 7, 3
A_STREAM = 40
MEGABYTES = 200


class TapeLink(Link):
    """A link to rank 0 over which comes what is on a tape; at its end, the end."""

    sums = True

    def __init__(self, sock: socket.socket, tape: bytes, rng: np.random.Generator) -> None:
        super().__init__(sock, 1, 0, RUN, GENERATION)
        self._tape, self._at, self._rng = memoryview(tape), 0, rng

    def receive(self, view: memoryview, block: bool) -> int:
        if self._at == len(self._tape):
            raise LinkClosed
        got = min(len(view), len(self._tape) - self._at, int(self._rng.integers(1, 5_000)))
        view[:got] = self._tape[self._at : self._at + got]
        self._at += got
        return got

    def send(self, header: object, payload: object) -> int:
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    def pending(self) -> bool:
        return False

    def set_timeout(self, timeout: float) -> None:
        pass


def honest(rng: np.random.Generator, number: int) -> tuple[bytes, bytes]:
    """Return a frame's header and payload."""
    size = int(rng.choice([0, 4, 40, 700, 40_000], p=[0.3, 0.3, 0.2, 0.19, 0.01]))
    payload = rng.bytes(size)
    kind = int(rng.choice([MESSAGE, COLLECTIVE, CONTROL]))
    fields = rng.integers(0, 1 << 31, 8).tolist()
    raw = encode(
        kind, 1, 0, 0, SUMMED, 0, fields[0], RUN, GENERATION, fields[1], fields[2], fields[3], size, 0, 0.5,
        payload_sum(payload, size),
    )  # fmt: skip
    return numbered(raw, number), payload


def lying(rng: np.random.Generator, number: int) -> bytes:
    """Return a frame whose header is whole, and says anything."""
    bytes_, halves, words = rng.integers(0, 256, 4), rng.integers(0, 1 << 32, 6), rng.integers(0, 1 << 63, 5)
    length = (int(rng.integers(0, 200)), 6 << 30, 1 << 40, (1 << 64) - 1)[rng.integers(4)]
    own = bool(rng.integers(2))  # whether it is at least of this run
    raw = encode(
        *bytes_.tolist(), *halves[:3].tolist(), RUN if own else int(words[0]), GENERATION if own else int(halves[3]),
        int(halves[4]), int(words[1]), int(words[2]), length, int(words[3]), float("nan"), int(words[4]),
    )  # fmt: skip
    return numbered(raw, number) + rng.bytes(int(rng.integers(0, 200)))


def stream(rng: np.random.Generator) -> tuple[bytes, list[bytes]]:
    """Return what comes over a link, and the payloads before the first frame that is not as it was sent."""
    number, tape, good = first_number(0), bytearray(), list[bytes]()
    harmed = int(rng.integers(A_STREAM + 1))  # none, now and then
    before = b""
    for index in range(A_STREAM):
        header, payload = honest(rng, number)
        frame = header + payload
        if index == harmed:
            return bytes(tape + harm(rng, frame, before, number)), good
        tape += frame
        good.append(payload)
        before, number = frame, next_number(number)
    return bytes(tape), good


def harm(rng: np.random.Generator, frame: bytes, before: bytes, number: int) -> bytes:
    """Return what comes instead of a frame, and after it."""
    altered = bytearray(frame)
    way = int(rng.integers(6))
    if way == 0:
        for _ in range(int(rng.integers(1, 9))):
            altered[int(rng.integers(len(altered)))] ^= int(rng.integers(1, 256))
        return altered if bytes(altered) != frame else altered[:-1]
    if way == 1:
        return altered[: int(rng.integers(len(altered)))]
    if way == 2:
        return rng.bytes(int(rng.integers(1, 4 * HEADER)))
    if way == 3:
        return before or numbered(frame[: HEADER - 8], number + 1)  # a frame again, or too early
    return lying(rng, number)


def read(tape: bytes, sock: socket.socket, rng: np.random.Generator) -> tuple[list[bytes], bool]:
    """Read all frames as a rank that waits for others; return their payloads, and whether something was wrong with the next."""
    context = RankContext(1, 2, RUN, GENERATION, 1.0)
    link = TapeLink(sock, tape, rng)
    channel = Channel(context, [link, None], Meter(2))
    found: list[bytes] = []
    try:
        while True:
            header = link.peek()
            if header is None:
                continue
            if header.length <= 700 and header.kind != CONTROL and rng.integers(2):
                view = link.read_small()
                if view is not None:
                    found.append(bytes(view))
            elif channel.stash(link, False, "the fuzzer"):
                kept = context.announcements.pop(header.sequence) if header.kind == CONTROL else link.inbox.pop()[1]
                found.append(bytes(kept))
    except CorruptFrame:
        return found, True
    except LinkClosed:
        return found, False


def resident() -> float:
    """Return the most megabytes that this process has had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024 if sys.platform == "linux" else 1024 * 1024)


def fuzz(frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, refused, sent = resident(), 0, 0
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        for number in itertools.count():
            if sent >= frames:
                break
            tape, good = stream(rng)
            found, was_refused = read(tape, ours, rng)
            sent += len(good) + 1
            refused += was_refused
            # A header that is whole may say what could be so: that frame is read, too.
            assert found[: len(good)] == good, f"stream {number} of seed {seed}"
            assert len(found) <= len(good) + 1, f"stream {number} of seed {seed}"
    assert refused > 0.3 * number
    assert resident() - before < MEGABYTES
