"""Whether a PyTorch module can compute on another device: tried on PyTorch's "meta" device, which needs no GPU and computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from scaleml.arrays import Array
from scaleml.frameworks.torch_device import tensor_of
from scaleml.frameworks.torch_forward import Inputs, copied

__all__ = ["Apart", "OneDevice", "why_it_stays"]

_MAY: Final = {Tensor.to, Tensor.copy_, Tensor.__getitem__, Tensor.__setitem__, Tensor.type_as, Tensor.cpu}
"""What takes tensors of several devices."""


class Apart(RuntimeError):
    """A function was given tensors of several devices."""


@final
class OneDevice(TorchFunctionMode):
    """While it lasts, functions of PyTorch refuse tensors of several devices, as they do on a GPU; "meta" alone lets many pass.

    Parameters
    ----------
    *others : callable
        Functions that may take them, beside those of PyTorch that do on a GPU.
    """

    def __init__(self, *others: Callable[..., Any]) -> None:
        super().__init__()
        self._may = {*_MAY, *others}

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function, or raise `Apart`."""
        named = kwargs or {}
        places = {one.device.type for one in _tensors((args, named.values())) if one.ndim}
        if len(places) > 1 and function not in self._may:
            raise Apart(f"{getattr(function, '__name__', function)} is given tensors of several devices")
        return function(*args, **named)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list) or type(value) is type({}.values()):
            yield from _tensors(value)


@final
class _Nowhere:
    """PyTorch's device "meta", whose tensors have a shape and no values; see `Inputs`."""

    place = torch.device("meta")

    def tensor(self, array: Array) -> Tensor:
        return torch.empty_like(tensor_of(array), device=self.place)


def why_it_stays(module: nn.Module, call: Callable[[nn.Module, Inputs], object]) -> str:
    """Return why a module, or its loss, cannot leave the processor, with the remedy; nothing where nothing shows.

    Parameters
    ----------
    module : nn.Module
    call : callable
        Given a copy of the module on another device, and that, calls it on some rows, and its loss.

    Examples
    --------
    >>> import numpy as np
    >>> class Places(nn.Module):
    ...     def forward(self, x):
    ...         return x * torch.arange(x.shape[1])
    >>> x = np.zeros((3, 2), "f4")
    >>> why_it_stays(Places(), lambda module, device: module(device.tensor(x)))[:60]
    'Places makes tensors that stay on the CPU (mul is given tens'
    """
    there = copied(module).train().to("meta")
    with OneDevice():
        try:
            call(there, _Nowhere())
        except Exception as error:  # noqa: BLE001  "meta" refuses much that a GPU takes
            cause = error if isinstance(error, Apart) else error.__cause__
            if isinstance(cause, Apart):
                return (
                    f"{type(module).__name__} makes tensors that stay on the CPU ({cause}), or its loss does: make them where its input "
                    "is, as in torch.arange(n, device=x.device), and its constants by register_buffer; or use device='cpu'"
                )
    return ""
