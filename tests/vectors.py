"""What ranks sum in the tests of collectives."""

import numpy as np


def vectors(size, n, dtype):
    """Every rank's data; floats of such different sizes that the order of summing shows."""
    made = []
    for rank in range(size):
        random = np.random.default_rng(rank)
        values = random.standard_normal(n) * 10.0 ** random.integers(-3, 4, n)
        made.append(values.astype(dtype))
    return made


def total(parts):
    """Their sum in rank order."""
    result = parts[0].copy()
    for part in parts[1:]:
        result += part
    return result
