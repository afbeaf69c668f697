"""Links over which frames are altered, lost, repeated, replayed and swapped: the right sum or an error, never a wrong sum."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from scaleml.comm import CommError, CorruptFrame, inprocess
from scaleml.comm.transport.frame import HEADER
from scaleml.comm.transport.link import Link

ROUNDS = 4
TIMEOUT = 0.2  # of who waits for what was lost; without harm nobody does
SIZES = {
    "small": 10,
    "whole": 6_000,
    "blocks": 40_000,
}  # float64: with a CRC-32, with sums of tables, by way of its owners


class ChaoticLink:
    """Sends a link's frames on, but for one of them, which it treats otherwise.

    Parameters
    ----------
    link : Link
        Whose ``send`` it takes the place of.
    at : int
        Which frame.
    harm : str
        One of `HARMS`.
    """

    def __init__(self, link: Link, at: int, harm: str, rng: np.random.Generator) -> None:
        self.struck = False
        self._link, self._at, self._harm, self._rng = link, at, harm, rng
        self._frames: list[bytes] = []
        self._held = b""
        self._direct = link.write
        link.send = self.send  # type: ignore[method-assign]

    def send(self, header: Any, payload: Any) -> int:
        frame = bytes(header) + bytes(payload)
        self._frames.append(frame)
        out = frame
        if len(self._frames) == self._at + 1:
            self.struck = True
            out = getattr(self, self._harm)(bytearray(frame))
        if out:
            self._direct(bytes(out) + self._held)
            self._held = b""
        return len(frame)

    def flip(self, frame: bytearray) -> bytes:
        bit = int(self._rng.integers(8 * len(frame)))
        frame[bit // 8] ^= 1 << bit % 8
        return frame

    def flip_header(self, frame: bytearray) -> bytes:
        bit = int(self._rng.integers(8 * HEADER))
        frame[bit // 8] ^= 1 << bit % 8
        return frame

    def swap_words(self, frame: bytearray) -> bytes:
        words = (len(frame) - HEADER) // 8
        if words < 2 or len(set(words_of(frame))) < 2:
            return self.flip(frame)
        while True:
            one, other = (HEADER + 8 * int(word) for word in self._rng.choice(words, 2, replace=False))
            if frame[one : one + 8] != frame[other : other + 8]:
                frame[one : one + 8], frame[other : other + 8] = frame[other : other + 8], frame[one : one + 8]
                return frame

    def cut(self, frame: bytearray) -> bytes:
        return frame[: int(self._rng.integers(1, len(frame)))]

    def drop(self, frame: bytearray) -> bytes:
        return b""

    def repeat(self, frame: bytearray) -> bytes:
        return frame + frame

    def replay(self, frame: bytearray) -> bytes:
        return frame + self._frames[int(self._rng.integers(len(self._frames)))]

    def replace(self, frame: bytearray) -> bytes:
        """In its stead, one that came before."""
        return self._frames[max(0, self._at - 1 - int(self._rng.integers(2)))] if self._at else b""

    def swap(self, frame: bytearray) -> bytes:
        """After the one that follows it."""
        self._held = bytes(frame)
        return b""


HARMS = ("flip", "swap_words", "cut", "drop", "repeat", "replay", "replace", "swap")
OF_WHOLE_FRAMES = ("flip_header", *HARMS[3:])


def words_of(frame: bytearray) -> list[bytes]:
    return [bytes(frame[at : at + 8]) for at in range(HEADER, len(frame) - 7, 8)]


def add(group: Any, x: np.ndarray) -> np.ndarray:
    group.allreduce(x)
    return x


def ring(group: Any, x: np.ndarray) -> np.ndarray:
    group.allreduce(x, "ring")
    return x


def started(group: Any, x: np.ndarray) -> np.ndarray:
    group.allreduce_start(x).wait()
    return x


def gathered(group: Any, x: np.ndarray) -> np.ndarray:
    return sum(np.frombuffer(part) for part in group.allgather_bytes(x.tobytes()))


def swapped(group: Any, x: np.ndarray) -> np.ndarray:
    other = 1 - group.rank
    sending = group.send_start(x, other, tag=3)
    theirs = group.recv(other, tag=3).array
    sending.wait()
    return x + theirs


WAYS: dict[str, Callable[[Any, np.ndarray], np.ndarray]] = {
    "allreduce": add, "ring": ring, "background": started, "bytes": gathered, "messages": swapped,
}  # fmt: skip


def trial(seed: int, harms: tuple[str, ...], **options: Any) -> tuple[bool, list[BaseException]]:
    """Sum a few vectors over two ranks, with one frame harmed; return whether it was, and what the ranks said of it."""
    rng = np.random.default_rng(seed)
    way = WAYS[list(WAYS)[seed % len(WAYS)]]
    n = list(SIZES.values())[seed // len(WAYS) % len(SIZES)]
    data = rng.standard_normal((ROUNDS, 2, n))
    groups = inprocess.groups(2, timeout=TIMEOUT if harms else 20.0, **options)
    liar = int(rng.integers(2))
    mesh = groups[liar].mesh
    link = (mesh.progress.channel if way is started else mesh.channel).link(1 - liar)
    harm = harms[int(rng.integers(len(harms)))] if harms else "nothing"
    chaos = ChaoticLink(link, int(rng.integers(ROUNDS)) if harms else -1, harm, rng)
    errors: list[BaseException] = []
    wrong: list[str] = []

    def rank(group: Any) -> None:
        try:
            for each in data:
                found = way(group, each[group.rank].copy())
                if not np.array_equal(found, each[0] + each[1]):
                    wrong.append(f"seed {seed}: rank {group.rank} has a wrong sum after {harm}")
        except CommError as error:
            errors.append(error)
        finally:
            group.close()

    threads = [threading.Thread(target=rank, args=(group,)) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    return chaos.struck, errors


def trials(count: int, harms: tuple[str, ...], first: int = 0, **options: Any) -> None:
    refused = struck = 0
    for seed in range(first, first + count):
        was_struck, errors = trial(seed, harms, **options)
        struck += was_struck
        refused += any(isinstance(error, CorruptFrame) for error in errors)
    assert struck > 0.9 * count, "the harm was not done"
    assert refused > 0.5 * count, "the last frame may come twice: nobody reads that"
