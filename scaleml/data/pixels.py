"""Pixels: whether rows hold whole numbers as images have them, from 0 to 255, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from scaleml.arrays import Array

BRIGHT: Final = 64
"""Numbers up to here may be counts, labels or digits, which need no scaling."""
_ROWS: Final = 64
_VALUES: Final = 1 << 18
"""Values that are looked at at most: of large images fewer rows."""


def brightest(parts: Mapping[str, Array]) -> int:
    """Return the largest number in some rows of what may be images, spread over all; 0 where nothing is one.

    Parameters
    ----------
    parts : mapping of str to (n, ...) array
        The inputs. Bytes may be images; floats where they are the only input, have several axes and are whole, from 0 to 255.

    Examples
    --------
    >>> images = np.full((2, 3, 3), 200)
    >>> brightest({"": images.astype("uint8")}), brightest({"": images.astype("f4")}), brightest({"": images / 255})
    (200, 200, 0)
    """
    found = 0
    for part in parts.values():
        is_image = part.dtype == np.uint8 or (len(parts) == 1 and part.dtype.kind == "f" and part.ndim > 2)
        if not is_image or not part.size:
            continue
        count = max(1, min(_ROWS, _VALUES // max(1, part[0].size)))
        some = part[:: -(-len(part) // count)]
        if part.dtype == np.uint8 or (some.min() >= 0 and some.max() <= 255 and bool((some == np.floor(some)).all())):
            found = max(found, int(some.max()))
    return found
