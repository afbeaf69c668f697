"""Arrays of any library as NumPy's: views of PyTorch tensors on a CPU, copies of what lies on a GPU; no library is imported here."""

from __future__ import annotations

import sys
from numbers import Number
from types import ModuleType
from typing import Any, final

import numpy as np

from scaleml.arrays import Array, namespace, to_numpy

_AS_BITS = {"bfloat16": "int16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}
"""PyTorch's dtypes that NumPy has not, and which of its own are as wide."""


@final
class HostArray:
    """An array, tensor or number as a contiguous NumPy array, and the way back.

    Parameters
    ----------
    value : NumPy or CuPy array, PyTorch tensor, or number
        Of any shape.

    Attributes
    ----------
    array : array
        Its elements, contiguous: the same memory where that is possible.
    kind : str
        The dtype as its own library calls it.

    Raises
    ------
    TypeError
        For anything else.

    Examples
    --------
    >>> HostArray(2.5).restored()
    2.5
    """

    def __init__(self, value: object) -> None:
        self._value = value
        self._torch = _torch_of(value)
        if self._torch is not None:
            self.kind = str(value.dtype).removeprefix("torch.")  # type: ignore[attr-defined]
            self._view = self._of_tensor(value)
        elif isinstance(value, np.ndarray) or namespace(value) is not np:
            self._view = to_numpy(value)
            self.kind = str(self._view.dtype)
        elif isinstance(value, Number | np.generic):
            self._view = np.array(value)
            self.kind = str(self._view.dtype)
        else:
            raise TypeError(
                f"{type(value).__name__} cannot travel between ranks: pass a number, a NumPy or CuPy array, or a PyTorch tensor; "
                "what all ranks are to have goes into the arguments of spmd, other objects come back as its results"
            )
        if self._view.dtype.hasobject:
            raise TypeError("an array of Python objects cannot travel between ranks: make it one of numbers")
        native = self._view.astype(self._view.dtype.newbyteorder("="), copy=False)
        self.array: Array = np.ascontiguousarray(native).reshape(native.shape)

    @property
    def is_number(self) -> bool:
        """Whether the value cannot be changed: the result is a number of its own."""
        return isinstance(self._value, Number | np.generic)

    def restored(self) -> Any:
        """Bring what stands in `array` back to where it came from, and return that; of a number, another one."""
        if self.is_number:
            return self.array.item() if not isinstance(self._value, np.generic) else self.array[()]
        if self._torch is not None:
            self._into_tensor(self._value)
        elif isinstance(self._value, np.ndarray):
            if not np.shares_memory(self.array, self._value):
                self._value[...] = self.array
        else:
            self._value[...] = namespace(self._value).asarray(self.array)  # type: ignore[index]
        return self._value

    def like(self, array: Array) -> Any:
        """Return other elements, of any shape, as the library has them that the value is of, on its device."""
        if self.is_number:
            return array[()]
        if self._torch is not None:
            tensor = self._torch.from_numpy(array)
            if self.kind in _AS_BITS:
                tensor = tensor.view(self._value.dtype)  # type: ignore[attr-defined]
            return tensor.to(self._value.device)  # type: ignore[attr-defined]
        return array if isinstance(self._value, np.ndarray) else namespace(self._value).asarray(array)

    def _of_tensor(self, tensor: Any) -> Array:
        tensor = tensor.detach()
        if type(tensor).__name__ == "DTensor":
            raise TypeError(
                "a DTensor is one tensor in parts on all ranks already: pass its to_local(), or its full_tensor()"
            )
        if tensor.layout is not self._torch.strided:  # type: ignore[union-attr]
            raise TypeError(f"a tensor of layout {tensor.layout} cannot travel between ranks: pass its to_dense()")
        if self.kind in _AS_BITS:
            tensor = tensor.view(getattr(self._torch, _AS_BITS[self.kind]))
        view: Array = tensor.cpu().resolve_conj().resolve_neg().numpy()
        return view

    def _into_tensor(self, tensor: Any) -> None:
        tensor = tensor.detach()
        if tensor.device.type == "cpu" and np.shares_memory(self.array, self._view):
            return
        tensor.copy_(self.like(self.array))


def widened(host: HostArray) -> Array | None:
    """Return the elements of half precision in one that NumPy can sum; None where it can sum them as they are."""
    if host.kind == "bfloat16":
        bits = host.array.view(np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32)
    return host.array.astype(np.float32) if host.kind == "float16" else None


def narrow(host: HostArray, sums: Array) -> None:
    """Write single-precision sums into an array of half precision, rounded to the nearest, to even between two."""
    if host.kind == "float16":
        host.array[...] = sums.astype(np.float16)
        return
    bits = np.ascontiguousarray(sums).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    rounded[np.isnan(sums)] = 0x7FC0
    host.array.view(np.uint16)[...] = rounded


def _torch_of(value: object) -> ModuleType | None:
    """Return PyTorch, which whoever has a tensor has imported, if this is one."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(value, torch.Tensor) else None
