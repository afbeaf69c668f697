"""Random numbers that modules of PyTorch draw: a function of what they are seeded by, whatever else the process draws."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final, Literal

import numpy as np
import torch

__all__ = ["Draws", "drawing", "drawn_by", "key_of", "seeded"]

Draws = Literal["torch", "all"] | None
"""Whose random numbers a module draws in training: PyTorch's, also Python's or NumPy's, or none."""

_lock: Final = threading.RLock()
"""Of the process's random streams, which ranks on threads share."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the process's random streams (PyTorch's on the CPU, NumPy's and Python's) while the block lasts.

    Afterwards they go on as if nothing had been.
    """
    with _lock, torch.random.fork_rng(devices=[]):
        kept, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  modules draw from it, whatever we do
        try:
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed all GPUs', too
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
        finally:
            random.setstate(kept)
            np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def drawing(draws: Draws, key: int, others: Sequence[torch.Generator] = ()) -> Iterator[None]:
    """Seed the streams that a module draws from while the block lasts; at little cost where they are PyTorch's alone.

    Parameters
    ----------
    draws : {"torch", "all"} or None
        Whose these are.
    key : int
        The seed.
    others : sequence of torch.Generator
        A GPU's, beside the processor's.
    """
    if draws is None:
        yield
        return
    generators = (torch.default_generator, *others)
    with _lock, seeded(key) if draws == "all" else nullcontext():
        kept = [one.get_state() for one in generators]
        for one in generators:
            one.manual_seed(key)
        try:
            yield
        finally:
            for one, state in zip(generators, kept, strict=True):
                one.set_state(state)


def drawn_by(call: Callable[[], object]) -> Draws:
    """Return whose random numbers a function draws; to be called where they are seeded."""
    before = torch.default_generator.get_state(), _others()
    call()
    if _others() != before[1]:
        return "all"
    return None if torch.equal(torch.default_generator.get_state(), before[0]) else "torch"


def _others() -> tuple[object, ...]:
    _, keys, place, *_ = np.random.get_state()  # noqa: NPY002
    return random.getstate(), np.asarray(keys).tobytes(), place


def key_of(*numbers: int) -> int:
    """Return 32 bits that depend on all of the numbers, and on their order (the finaliser of SplitMix64, Steele et al. 2014).

    Examples
    --------
    >>> key_of(0, 1, 0) != key_of(0, 0, 1)
    True
    """
    mixed = 0
    for number in numbers:
        mixed = (mixed + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed & 0xFFFFFFFF
