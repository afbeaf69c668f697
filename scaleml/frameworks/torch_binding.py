"""Binding: a PyTorch module whose parameters are views into a flat vector, and whose gradients are views into another."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from torch import Tensor, nn

from scaleml.arrays import Array
from scaleml.frameworks.layout import Layout
from scaleml.frameworks.torch_device import PROCESSOR, TorchDevice
from scaleml.models.flat_model import Ready

__all__ = ["Binding", "flattened", "trainable"]


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name; tied ones once."""
    return {name: one for name, one in module.named_parameters() if one.requires_grad}


def flattened(module: nn.Module, layout: Layout, dtype: np.dtype[Any]) -> Array:
    """Return the parameters of a module as one vector (P,) of its own."""
    flat = np.empty(layout.size, dtype)
    for part, one in zip(layout.slices, trainable(module).values(), strict=True):
        flat[part] = one.detach().cpu().numpy().ravel()
    return flat


@final
class Binding:
    """A module bound to flat vectors: its parameters are views into one, its gradients gather in another.

    Parameters
    ----------
    module : nn.Module
        It is this binding's alone.
    layout : Layout
        Of its parameters.
    device : TorchDevice
        Where the module is, and the vectors.
    """

    def __init__(self, module: nn.Module, layout: Layout, device: TorchDevice = PROCESSOR) -> None:
        self.module = module
        self._device = device
        self._layout = layout
        self._params = list(trainable(module).values())
        owners = {
            id(one): (layer._parameters, key)
            for layer in reversed(list(module.modules()))
            for key, one in layer._parameters.items()
        }
        self._owned = [(*owners[id(one)], one) for one in self._params]
        self._grads: list[Tensor] = []
        self._w: Array | None = None
        self._out: Array | None = None
        self._pointers: list[int] = []
        self._ready: Ready | None = None
        self._hooked = False
        self._groups = layout.groups
        self._parts = layout.parts
        self._group_of = [number for number, group in enumerate(self._groups) for _ in group]
        self._missing: list[int] = []
        self._seen: set[int] = set()
        self._next = -1

    def params_from(self, w: Array) -> None:
        """Have the parameters be views into ``w`` (P,)."""
        if w is self._w:
            return
        if self._w is None or self._device.address(w) != self._device.address(self._w):
            whole = self._device.tensor(w)
            for one, part in zip(self._params, self._layout.slices, strict=True):
                one.data = whole[part].view(one.shape)
            self._pointers = [one.data_ptr() for one in self._params]
        self._w = w  # kept: else its memory might be another's

    def begin(self, out: Array, ready: Ready | None) -> None:
        """Have gradients gather in ``out`` (P,), from zero; ``ready`` is told of the parts of it that are final."""
        out.fill(0)
        if out is not self._out:
            if self._out is None or self._device.address(out) != self._device.address(self._out):
                whole = self._device.tensor(out)
                views = zip(self._layout.slices, self._params, strict=True)
                self._grads = [whole[part].view(one.shape) for part, one in views]
                for one, grad in zip(self._params, self._grads, strict=True):
                    one.grad = grad
            self._out = out
        self._ready = ready
        if ready is not None:
            if not self._hooked:
                self._hooked = True
                for number, one in enumerate(self._params):
                    one.register_post_accumulate_grad_hook(self._hook(number))
            self._missing = [len(group) for group in self._groups]
            self._seen.clear()
            self._next = len(self._groups) - 1

    def end(self) -> None:
        """Take in gradients that came in memory of their own, and tell of the parts that no row had a say in.

        Raises
        ------
        ValueError
            The module has put another parameter in the place of one.
        """
        for (own, key, one), grad, pointer in zip(self._owned, self._grads, self._pointers, strict=True):
            if one.grad is not grad:
                self._take_in(one, grad)
            if own.get(key) is not one or one.data_ptr() != pointer:
                raise ValueError(
                    f"the module's forward replaces its parameter {self._name(one)!r}, of which only the first is trained: change it in "
                    "place, under torch.no_grad(), or use torch.nn.utils.parametrize"
                )
        ready = self._ready
        if ready is not None:
            self._ready = None
            while self._next >= 0:
                self._next -= 1
                ready(self._parts[self._next + 1])

    def _hook(self, number: int) -> Any:
        group = self._group_of[number]

        def gathered(one: Tensor) -> None:
            if self._ready is None:
                return
            if number in self._seen:
                raise RuntimeError(
                    f"the gradient of {self._layout.names[number]!r} grew after it was final, as under checkpoint(use_reentrant=True): "
                    "use use_reentrant=False, or AllReduce() without overlap"
                )
            if one.grad is not self._grads[number]:
                self._take_in(one, self._grads[number])
            self._seen.add(number)
            self._missing[group] -= 1
            while self._next >= 0 and not self._missing[self._next]:
                self._next -= 1
                self._ready(self._parts[self._next + 1])

        return gathered

    @staticmethod
    def _take_in(one: Tensor, grad: Tensor) -> None:
        if one.grad is not None:
            grad.copy_(one.grad)
        one.grad = grad

    def _name(self, one: Tensor) -> str:
        return next(name for name, own in zip(self._layout.names, self._params, strict=True) if own is one)
