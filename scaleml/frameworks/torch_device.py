"""Where a PyTorch module computes: on the processor, or on the GPU of a rank's CuPy arrays, sharing their memory and their stream."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, Protocol, cast, final

import numpy as np
import torch
from torch import Tensor

from scaleml.arrays import Array, gpu_library, namespace

__all__ = ["PROCESSOR", "Gpu", "TorchDevice", "placed", "tensor_of", "what_is_missing"]


class TorchDevice(Protocol):
    """Where a module, its parameters and its rows are; for the use of one thread.

    Attributes
    ----------
    place : torch.device
    generators : tuple of torch.Generator
        What layers draw from there, beside the processor's own.
    """

    place: torch.device
    generators: tuple[torch.Generator, ...]

    def holds(self, array: Array) -> bool:
        """Whether an array lies there."""

    def address(self, array: Array) -> int:
        """Return where in memory an array begins."""

    def tensor(self, array: Array) -> Tensor:
        """Return a tensor over an array's memory; of what does not lie there, of a copy that does."""

    def array(self, tensor: Tensor) -> Array:
        """Return an array over a tensor's memory."""

    def number(self, value: Tensor | float) -> float:
        """Return a number; where looking at it would be to wait, an array of no dimensions."""

    def queued(self) -> AbstractContextManager[object]:
        """Have what PyTorch does meanwhile come after what was done with arrays before, and before what will be."""

    def release(self) -> None:
        """Give back memory that nothing uses."""


def tensor_of(array: Array) -> Tensor:
    """Return a tensor over the memory of a NumPy array, also where that is only to be read, which PyTorch cannot tell apart.

    Of what PyTorch has no tensors over, such as reversed rows and fields of packed records, a tensor of a copy.
    """
    if any(step < 0 or step % array.itemsize for step in array.strides):
        array = np.array(array, order="C")
    if not array.flags.writeable:
        inside = {**array.__array_interface__, "data": (array.__array_interface__["data"][0], False)}
        array = np.asarray(SimpleNamespace(__array_interface__=inside, kept=array))
    return torch.from_numpy(array)


@final
class _Processor:
    """The processor and its memory, NumPy's; see `TorchDevice`."""

    place = torch.device("cpu")
    generators: tuple[torch.Generator, ...] = ()
    _nothing: Final = contextlib.nullcontext()

    def holds(self, array: Array) -> bool:
        return type(array) is np.ndarray or namespace(array) is np

    def address(self, array: Array) -> int:
        return int(array.__array_interface__["data"][0])

    def tensor(self, array: Array) -> Tensor:
        return tensor_of(array)

    def array(self, tensor: Tensor) -> Array:
        return cast("Array", tensor.detach().numpy())

    def number(self, value: Tensor | float) -> float:
        return value.item() if isinstance(value, Tensor) else value

    def queued(self) -> AbstractContextManager[object]:
        return self._nothing

    def release(self) -> None:
        pass


PROCESSOR: Final = _Processor()


@final
class Gpu:
    """A GPU, where CuPy and PyTorch work on the same memory (DLPack), in the same order: see `TorchDevice`.

    Backward passes run in the calling thread: PyTorch's own ones would know neither its CuPy stream nor what hooks may do there.

    Parameters
    ----------
    place : torch.device
    index : int
        Its number in CuPy.
    stream : callable
        Given the address of a CUDA stream, returns a context in which PyTorch queues its work there.
    generators : tuple of torch.Generator
    """

    def __init__(
        self,
        place: torch.device,
        index: int,
        stream: Callable[[int], AbstractContextManager[object]],
        generators: tuple[torch.Generator, ...],
    ) -> None:
        self.place, self.generators = place, generators
        self._xp: Any = gpu_library()
        self._index, self._stream = index, stream

    def holds(self, array: Array) -> bool:
        return namespace(array) is not np and _index(array) == self._index

    def address(self, array: Array) -> int:
        return cast("int", array.data.ptr)  # type: ignore[attr-defined]  # CuPy's

    def tensor(self, array: Array) -> Tensor:
        if (
            namespace(array) is np
        ):  # a field of records, which CuPy has none of: sent from pinned memory, so that nobody waits
            array = self._xp.asarray(np.ascontiguousarray(array))
        return torch.utils.dlpack.from_dlpack(array)

    def array(self, tensor: Tensor) -> Array:
        return cast("Array", self._xp.from_dlpack(tensor.detach()))

    def number(self, value: Tensor | float) -> float:
        return cast("float", self.array(value)) if isinstance(value, Tensor) else value

    @contextlib.contextmanager
    def queued(self) -> Any:
        with torch.autograd.set_multithreading_enabled(False), self._stream(self._xp.cuda.get_current_stream().ptr):
            yield

    def release(self) -> None:
        if self.place.type == "cuda":
            torch.cuda.empty_cache()


def _index(array: Array) -> int:
    """Return the number of the GPU on which a CuPy array lies."""
    return int(array.__dlpack_device__()[1])


def placed(array: Array) -> TorchDevice:
    """Return where a module computes on an array."""
    if namespace(array) is np:
        return PROCESSOR
    index = _index(array)
    place = torch.device("cuda", index)
    torch.cuda.init()
    return Gpu(place, index, partial(_on_stream, place), (torch.cuda.default_generators[index],))


def _on_stream(place: torch.device, address: int) -> AbstractContextManager[object]:
    return torch.cuda.stream(torch.cuda.ExternalStream(address, device=place))


def what_is_missing() -> tuple[str, str]:
    """Return what PyTorch lacks in this process for the GPUs that CuPy sees, and the remedy; nothing where it lacks nothing."""
    version = torch.__version__
    built = torch.version.cuda
    if built is None:
        return (
            f"PyTorch {version} is built without CUDA",
            "install one with it there, such as pip install torch --index-url https://download.pytorch.org/whl/cu126",
        )
    if not torch.cuda.is_available():
        return (
            f"PyTorch {version}, built for CUDA {built}, cannot use the GPU that CuPy sees",
            "its driver is most often too old for that CUDA: see nvidia-smi, and install PyTorch for the CUDA that it says",
        )
    return "", ""
