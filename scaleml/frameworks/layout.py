"""Layout: where named parameter arrays lie in the flat vector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import Final, final

__all__ = ["Layout"]

ENOUGH: Final = 16384
"""Items that a part has at least where gradients are sent part by part: each costs a message, and a layer norm alone is not worth one."""


@final
@dataclass(frozen=True)
class Layout:
    """Where named parameter arrays lie in the flat vector, one after the other.

    Parameters
    ----------
    names : tuple of str
        Such as ``"encoder.weight"`` or ``"encoder/kernel"``: what stands before the last point or slash is the layer.
    shapes : tuple of tuples of int
        Of each.
    leading : int
        How many of its first axes make the rows of an array's matrix: 1 where outputs come first, as in PyTorch; -1 where they come
        last, as in JAX and Keras.

    Examples
    --------
    >>> layout = Layout(("0.weight", "0.bias", "1.weight"), ((3, 2), (3,), (1, 3)))
    >>> layout.size, layout.named_parts[1], layout.matrices
    (12, ('0.bias', slice(6, 9, None)), ((0, 3, 2), (9, 1, 3)))
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    leading: int = 1

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Each array's part of the vector."""
        bounds = [0]
        for shape in self.shapes:
            bounds.append(bounds[-1] + math.prod(shape))
        return tuple(slice(start, stop) for start, stop in pairwise(bounds))

    @property
    def size(self) -> int:
        """Items of the vector."""
        return self.slices[-1].stop if self.slices else 0

    @property
    def named_parts(self) -> tuple[tuple[str, slice], ...]:
        """Each array's name and its part of the vector."""
        return tuple(zip(self.names, self.slices, strict=True))

    @property
    def matrices(self) -> tuple[tuple[int, int, int], ...]:
        """Where arrays of two axes and more lie, as matrices: first item, rows, columns."""
        found = []
        for part, shape in zip(self.slices, self.shapes, strict=True):
            rows = math.prod(shape[: self.leading])
            if len(shape) > 1 and rows:
                found.append((part.start, rows, math.prod(shape) // rows))
        return tuple(found)

    @cached_property
    def groups(self) -> tuple[range, ...]:
        """The arrays of each part, by number: whole layers, small ones together with those before them."""
        layers: list[range] = []
        for _, numbers in groupby(range(len(self.names)), lambda number: _layer(self.names[number])):
            own = list(numbers)
            layers.append(range(own[0], own[-1] + 1))
        found: list[range] = []
        items = ENOUGH
        for layer in reversed(layers):
            if items >= ENOUGH:
                found.append(layer)
                items = 0
            found[-1] = range(layer.start, found[-1].stop)
            items += self.slices[layer[-1]].stop - self.slices[layer[0]].start
        return tuple(reversed(found))

    @property
    def parts(self) -> tuple[slice, ...]:
        """The parts of the vector whose gradients are sent one by one."""
        return tuple(slice(self.slices[group[0]].start, self.slices[group[-1]].stop) for group in self.groups)


def _layer(name: str) -> str:
    return name[: max(name.rfind("."), name.rfind("/"), 0)]
