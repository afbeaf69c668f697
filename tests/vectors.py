"""What ranks sum in the tests of collectives."""

import threading
from functools import lru_cache

import numpy as np

_one_at_a_time = threading.Lock()


def vectors(size, n, dtype):
    """Every rank's data, read-only; floats of such different sizes that the order of summing shows."""
    with _one_at_a_time:  # all ranks ask for the same: one draws it
        return [_drawn(rank, n, dtype) for rank in range(size)]


@lru_cache(maxsize=64)
def _drawn(rank, n, dtype):
    random = np.random.default_rng(rank)
    values = random.standard_normal(n) * 10.0 ** random.integers(-3, 4, n)
    made = values.astype(dtype)
    made.setflags(write=False)
    return made


def total(parts):
    """Their sum in rank order."""
    result = parts[0].copy()
    for part in parts[1:]:
        result += part
    return result


def assert_same(x, expected):
    """Compare them as NumPy does, whose own function takes ten times as long, mostly to find no NaN."""
    if not np.array_equal(x, expected):
        np.testing.assert_array_equal(x, expected)
