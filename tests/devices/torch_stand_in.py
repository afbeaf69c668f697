"""The GPU of a PyTorch module, stood in for: arrays of the stand-in for CuPy are shared as tensors of the processor's."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import fake_cupy
from scaleml.arrays import namespace
from scaleml.frameworks.torch_device import PROCESSOR, Gpu
from scaleml.frameworks.torch_movable import OneDevice


def placed(array):
    """Return where a module computes on an array: all is as on a GPU, but for PyTorch's name of the device, and its stream."""
    if namespace(array) is np:
        return PROCESSOR
    return Gpu(torch.device("cpu"), 0, sys.modules["cupy"].cuda.queue_of, ())


class Meta:
    """PyTorch's "meta" device in the place of a GPU: whoever looks at a tensor, or leaves one elsewhere, fails."""

    place = torch.device("meta")
    generators = ()

    def holds(self, array):
        return namespace(array) is not np

    def address(self, array):
        return array.data.ptr

    def tensor(self, array):
        return torch.empty(array.shape, dtype=getattr(torch, str(array.dtype)), device="meta")

    def array(self, tensor):
        return fake_cupy.ndarray(np.ones(tuple(tensor.shape)))

    def number(self, value):
        return self.array(value) if isinstance(value, torch.Tensor) else value

    def queued(self):
        return OneDevice(torch._has_compatible_shallow_copy_type)  # as module.to asks

    def release(self):
        pass


@dataclass(frozen=True)
class There:
    """A model whose networks take the stand-in's arrays."""

    model: Any

    def __getattr__(self, name):
        return getattr(self.model, name)

    def build(self, signature):
        network = self.model.build(signature)
        network.place = placed
        return network
