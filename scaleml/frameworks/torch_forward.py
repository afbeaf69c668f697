"""The forward pass of a PyTorch module on rows of X: what it is given, and what is said when it cannot take it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor, nn

from scaleml.arrays import Array
from scaleml.frameworks.inputs import Fields, fields_of, kind_of
from scaleml.frameworks.torch_device import PROCESSOR
from scaleml.frameworks.torch_refusal import why_refused
from scaleml.models.base import Signature

__all__ = ["Forward", "Inputs", "Transform"]

Transform = Callable[..., Any]
"""Of the tensor of a batch's rows, or of several inputs' tensors by name: what the module is given instead."""


class Inputs(Protocol):
    """What makes tensors of arrays: what a forward pass needs of a `TorchDevice`."""

    @property
    def place(self) -> torch.device: ...
    def tensor(self, array: Array) -> Tensor: ...


@final
class Forward:
    """Calls a module, and copies of it, on rows of X.

    Parameters
    ----------
    signature : Signature
        Of the data.
    dtype : torch.dtype
        Of the parameters.
    transform : callable or None
        What is done to the tensors first.
    compute : torch.dtype or None
        In which a module computes where that is not the parameters' (autocast).
    """

    def __init__(
        self, signature: Signature, dtype: torch.dtype, transform: Transform | None, compute: torch.dtype | None
    ) -> None:
        self._fields: Fields = fields_of(signature.row)
        self._dtype, self._transform, self._compute = dtype, transform, compute
        if signature.row is not None:
            for part in [signature.row[name] for name in self._fields.names] or [signature.row]:
                kind_of(part.base)
        self._leaves_inputs = {True: False, False: False}
        """By the module's mode, whether it was seen not to write into its inputs, so that they need not be copied."""
        self._has_taken = False
        """Whether the module has taken such rows, so that their shape is no matter when it fails."""

    def __call__(self, module: nn.Module, x: Array, device: Inputs = PROCESSOR) -> Any:
        """Return what the module makes of rows of X (n, ...): a tensor in the parameters' dtype, or what else it returns.

        Parameters
        ----------
        module : nn.Module
            On the device.
        x : array (n, ...)
            There, too, or records, whose fields are brought there.
        device : TorchDevice

        Raises
        ------
        ValueError
            It cannot take them, or fails for reasons of its own; see `why_refused`.
        """
        mode, names = module.training, self._fields.names
        inputs = [
            self._input(device.tensor(x[name] if names else x), x.dtype[name] if names else x.dtype, mode)
            for name in names or ("",)
        ]
        versions = [one._version for one in inputs]
        try:
            with self._autocast(device.place.type):
                output = self._call(module, inputs)
        except Exception as error:
            raise ValueError(why_refused(module, x, inputs, error, is_first=not self._has_taken)) from error
        self._has_taken = True
        writes = [one._version for one in inputs] != versions
        if writes and self._leaves_inputs[mode]:
            raise ValueError(
                f"{type(module).__name__} writes into its input, which it did not on the first batch: that would change the data for "
                "later epochs; begin its forward, or transform=, with x = x.clone()"
            )
        self._leaves_inputs[mode] = self._leaves_inputs[mode] or not writes
        if isinstance(output, Tensor) and output.dtype != self._dtype and output.is_floating_point():
            return output.to(self._dtype)
        return output

    def _call(self, module: nn.Module, inputs: list[Tensor]) -> Any:
        given: Any = inputs
        fields, transform = self._fields, self._transform
        if fields.names and fields.by_name:
            named = dict(zip(fields.names, inputs, strict=True))
            given = named if transform is None else transform(**named)
        elif transform is not None:
            given = transform(*inputs)
        if isinstance(given, dict):
            return module(**given)
        return module(*given) if isinstance(given, list | tuple) else module(given)

    def _autocast(self, place: str) -> AbstractContextManager[object]:
        if self._compute is None or place == "meta":
            return contextlib.nullcontext()
        return torch.autocast(place, dtype=self._compute)

    def _input(self, given: Tensor, dtype: np.dtype[Any], mode: bool) -> Tensor:
        kind = kind_of(dtype.base)
        wanted = self._dtype if kind == "float" else torch.int64 if kind == "integer" else torch.bool
        if given.dtype != wanted:
            return given.to(wanted)
        return given if self._leaves_inputs[mode] else given.clone()


def copied(module: nn.Module) -> nn.Module:
    """Return a copy of a module, without gradients.

    Raises
    ------
    ValueError
        It cannot be copied.
    """
    try:
        other = copy.deepcopy(module)
    except Exception as error:
        raise ValueError(
            f"{type(module).__name__} cannot be copied, which every rank has to ({type(error).__name__}: {error}): pass a factory, a "
            "function that makes it"
        ) from error
    other.zero_grad(set_to_none=True)
    return other
