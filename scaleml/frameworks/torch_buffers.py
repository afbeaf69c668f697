"""Buffers of PyTorch modules, such as BatchNorm's running statistics, as two flat vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from torch import Tensor, nn

from scaleml.arrays import Array
from scaleml.models.buffers import Buffers

__all__ = ["BufferLayout", "are_same"]

_FEW: Final = 4096
"""Items of a buffer that travels whether it was seen to change or not; larger ones that were not are masks and tables of positions."""


@final
@dataclass(frozen=True)
class BufferLayout:
    """Which buffers of a module travel, and where they lie in the two vectors.

    Parameters
    ----------
    values, counts : mapping from names to shapes
        Floats, and whole numbers or truth values.
    fixed : tuple of names
        What must not change, for every copy of the module has it.
    dtype : torch.dtype
        Of the values.
    """

    values: Mapping[str, tuple[int, ...]]
    counts: Mapping[str, tuple[int, ...]]
    fixed: tuple[str, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, first: Mapping[str, Tensor], module: nn.Module, dtype: torch.dtype) -> BufferLayout:
        """Return the layout of a module's buffers, by what they were first and what they are after a forward in training.

        Those that take another shape and are not persistent are what the module keeps for itself, as tables of positions do.

        Raises
        ------
        ValueError
            One that is persistent takes another shape.
        """
        values: dict[str, tuple[int, ...]] = {}
        counts: dict[str, tuple[int, ...]] = {}
        fixed: list[str] = []
        own, kept = dict(module.named_buffers()), module.state_dict().keys()
        for name, one in first.items():
            after = own.get(name)
            if name not in kept and (after is None or after.shape != one.shape):
                continue
            if one.is_complex() or (one.numel() > _FEW and are_same(after, one)):
                fixed.append(name)
            else:
                (values if one.is_floating_point() else counts)[name] = tuple(one.shape)
                _check_shape(name, after, tuple(one.shape))
        return cls(values, counts, tuple(fixed), dtype)

    def read(self, module: nn.Module) -> Buffers:
        """Return copies of a module's buffers.

        Raises
        ------
        ValueError
            One has another shape than at the start.
        """
        own = dict(module.named_buffers())
        return Buffers(_joined(own, self.values, self.dtype), _joined(own, self.counts, torch.int64))

    def write(self, module: nn.Module, buffers: Buffers) -> None:
        """Copy buffers into a module's."""
        own = dict(module.named_buffers())
        with torch.no_grad():
            for shapes, vector in ((self.values, buffers.values), (self.counts, buffers.counts)):
                start = 0
                for name, shape in shapes.items():
                    _check_shape(name, own.get(name), shape)
                    stop = start + int(np.prod(shape, dtype=int))
                    own[name].copy_(torch.tensor(vector[start:stop]).view(shape))
                    start = stop

    def check(self, module: nn.Module, first: nn.Module) -> None:
        """Raise ValueError where a module has changed what must not change, which another has as it was."""
        if not self.fixed:
            return
        own, others = dict(module.named_buffers()), dict(first.named_buffers())
        for name in self.fixed:
            if not are_same(own.get(name), others[name]):
                raise ValueError(
                    f"{type(module).__name__} has changed its buffer {name!r}, which it did not on its first batch: other ranks would "
                    "not hear of it; write to it in every forward in training, or make it a parameter"
                )


def are_same(one: Tensor | None, other: Tensor) -> bool:
    """Whether two tensors have the same shape and values, what is no number included."""
    if one is None or one.shape != other.shape:
        return False
    return bool(((one == other.to(one.device)) | (one != one)).all())


def _check_shape(name: str, one: Tensor | None, shape: tuple[int, ...]) -> None:
    if one is None or tuple(one.shape) != shape:
        raise ValueError(
            f"the module's buffer {name!r} has become {'nothing' if one is None else f'of shape {tuple(one.shape)}'}, but was of shape "
            f"{shape}: buffers on which ranks agree keep their shape; register what the module keeps for itself with persistent=False"
        )


def _joined(own: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> Array:
    for name, shape in shapes.items():
        _check_shape(name, own.get(name), shape)
    parts = [own[name].detach().reshape(-1).to(dtype) for name in shapes]
    return torch.cat(parts).cpu().numpy() if parts else torch.empty(0, dtype=dtype).numpy()
