"""Devices: where a rank's arrays lie, in the processor's memory or in a GPU's, and what brings them from one into the other.

The vector of a rank with a GPU, its gradients, the optimizer's slots and its batches are CuPy arrays, and all work on them is
queued on one stream, in order. Whoever looks at a value on the host waits for all that was queued: so nothing does, but telemetry,
evaluations and what travels through the host's memory.

*Other libraries* (PyTorch, say) that work on a rank's arrays share their memory by DLPack, and have to queue their work on the same
stream: ``torch.from_dlpack(w)`` is a view of a CuPy vector, and under ``with torch.cuda.stream(torch.cuda.ExternalStream(pointer))``,
with ``pointer = gpu_library().cuda.get_current_stream().ptr``, what PyTorch does comes after what CuPy did and before what it will do.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, NotRequired, Protocol, TypedDict, final

import numpy as np

from scaleml.arrays import Array, Rows, gpu_csr, gpu_library, is_sparse, namespace, to_numpy

CHOICES: Final = ("auto", "cpu", "cuda")
"""What ``device=`` may be."""
_LOOK: Final = 2e-5
"""Seconds between two looks whether a GPU has come to its end, where a peer may keep it from that."""
_GRACE: Final = 10_000
"""Looks for which a lost peer may be one that has come to its own end just before this GPU does."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that a rank uses.

    Parameters
    ----------
    index : int
        Its number among those that the rank's process sees.
    identity : str
        Tells it from all others, on all hosts.
    name : str
        Such as ``"NVIDIA H200"``.
    nccl : bool
        Whether the process can make groups of NCCL.
    """

    index: int
    identity: str = ""
    name: str = ""
    nccl: bool = False


class VisibleGpus(TypedDict):
    """The GPUs that a process sees: plain values."""

    library: str
    """Version of CuPy; "" where there is none."""
    error: str
    """Why no GPU can be used; "" where one can."""
    gpus: list[tuple[str, str]]
    """Identity and name of each, in the order of their numbers."""
    nccl: bool
    remedy: NotRequired[str]
    """What helps, where CuPy could use one but the model's own library cannot."""


def has_library() -> bool:
    """Whether CuPy is installed, without importing it: that takes a second."""
    return importlib.util.find_spec("cupy") is not None


def visible_gpus() -> VisibleGpus:
    """Return the GPUs that this process sees; ``CUDA_VISIBLE_DEVICES`` decides which these are.

    Examples
    --------
    >>> visible_gpus()["error"]  # doctest: +SKIP
    'CuPy is not installed'
    """
    found: VisibleGpus = {"library": "", "error": "", "gpus": [], "nccl": False}
    try:
        xp = gpu_library()
        found["library"] = str(xp.__version__)
        runtime = xp.cuda.runtime
        for index in range(runtime.getDeviceCount()):
            facts = runtime.getDeviceProperties(index)
            found["gpus"].append((bytes(facts["uuid"]).hex(), facts["name"].decode()))
        found["nccl"] = _has_nccl(xp)
    except ImportError as error:
        found["error"] = "CuPy is not installed" if error.name == "cupy" else f"CuPy cannot be imported: {error}"
    except Exception as error:  # noqa: BLE001  a driver that is missing or too old says so in many ways
        found["error"] = f"CuPy {found['library']} sees no GPU: {error}"
    if not found["gpus"] and not found["error"]:
        found["error"] = f"CuPy {found['library']} sees no GPU"
    return found


def visible_gpus_of(framework: str) -> VisibleGpus:
    """Return the GPUs that both CuPy and a model's framework can use; only where CuPy sees some is that imported.

    Parameters
    ----------
    framework : str
        As `scaleml.models.on_devices.Foreign` has it.
    """
    found = visible_gpus()
    if found["gpus"]:
        try:
            lack, remedy = importlib.import_module(framework).what_is_missing()
        except Exception as error:  # noqa: BLE001  a library that cannot be imported says so in many ways
            lack, remedy = f"{framework} cannot be imported: {error}", "install there what is installed here"
        if lack:
            found |= {"error": lack, "gpus": [], "remedy": remedy}
    return found


def _has_nccl(xp: ModuleType) -> bool:
    """Whether NCCL can be used: CuPy's wheels come without it."""
    try:
        return bool(xp.cuda.nccl.available and xp.cuda.nccl.get_version())
    except Exception:  # noqa: BLE001  ranks then talk through the processor's memory
        return False


class Device(Protocol):
    """Where a rank's arrays lie; for the use of the rank's thread."""

    @property
    def xp(self) -> ModuleType:
        """``numpy`` or ``cupy``."""

    @property
    def is_host(self) -> bool:
        """Whether arrays lie in the processor's memory."""

    def put(self, x: Rows) -> Rows:
        """Return an array or CSR matrix there; as it is, where it is there already, or is of records, which no GPU has."""

    def synchronize(self) -> None:
        """Wait until all that was queued is done."""

    def wait(self, check: Callable[[], None], sleep: Callable[[float], None]) -> None:
        """Wait alike, but call ``check`` meanwhile, which may raise."""

    def pin(self, x: Array) -> None:
        """Have copies from and to `x`, memory of the host, go fast: the system leaves it where it is until `release`."""

    def release(self) -> None:
        """Give back what was taken; arrays that are still in use stay as they are."""


@final
class Host:
    """The processor and its memory; see `Device`."""

    xp: Final = np
    is_host: Final = True

    def put(self, x: Rows) -> Rows:
        return x

    def synchronize(self) -> None:
        pass

    def wait(self, check: Callable[[], None], sleep: Callable[[float], None]) -> None:
        pass

    def pin(self, x: Array) -> None:
        pass

    def release(self) -> None:
        pass


HOST: Final = Host()


@final
class Cuda:
    """A GPU, with a stream of its own that the calling thread uses from now on; see `Device`.

    Parameters
    ----------
    gpu : Gpu
        Which.
    """

    is_host: Final = False

    def __init__(self, gpu: Gpu) -> None:
        self.xp: Final = gpu_library()
        self.gpu = gpu
        cuda = self.xp.cuda
        cuda.Device(gpu.index).use()
        self.stream: Any = cuda.Stream(non_blocking=True)
        self.stream.use()
        self._event = cuda.Event(disable_timing=True)
        self._pinned: list[int] = []

    def put(self, x: Rows) -> Rows:
        if namespace(x) is not np:
            return x
        there: Rows = x
        if is_sparse(x):
            there = gpu_csr(x)  # type: ignore[assignment]  # of the kind that x is of
        elif x.dtype.names is None:
            there = self.xp.asarray(x)
        return there

    def synchronize(self) -> None:
        self.stream.synchronize()

    def wait(self, check: Callable[[], None], sleep: Callable[[float], None]) -> None:
        self._event.record(self.stream)
        left = _GRACE
        while not self._event.done:
            try:
                check()
            except Exception:
                left -= 1
                if left <= 0:
                    raise
            sleep(_LOOK)

    def pin(self, x: Array) -> None:
        address, runtime = x.ctypes.data, self.xp.cuda.runtime
        if x.nbytes:
            try:
                runtime.hostRegister(address, x.nbytes, 0)
            except runtime.CUDARuntimeError:  # is pinned already, or may not be: copies then are slower
                return
            self._pinned.append(address)

    def free_bytes(self) -> int:
        """Return the bytes of memory that nobody uses."""
        return int(self.xp.cuda.runtime.memGetInfo()[0])

    def release(self) -> None:
        self.stream.synchronize()
        while self._pinned:
            self.xp.cuda.runtime.hostUnregister(self._pinned.pop())
        self.xp.cuda.Stream.null.use()
        self.xp.get_default_memory_pool().free_all_blocks()


def opened(gpu: Gpu | None) -> Host | Cuda:
    """Return the device of a rank: that GPU, or for None the host."""
    return HOST if gpu is None else Cuda(gpu)


def host_copy(x: Array) -> Array:
    """Return a copy of an array in the processor's memory.

    Examples
    --------
    >>> host_copy(np.arange(3)).tolist()
    [0, 1, 2]
    """
    return np.array(x) if type(x) is np.ndarray else np.array(to_numpy(x))


def fill(target: Array, source: Array) -> None:
    """Write `source` into `target`, of its shape, wherever either lies.

    Examples
    --------
    >>> x = np.zeros(2)
    >>> fill(x, np.ones(2, "f4"))
    >>> x.tolist()
    [1.0, 1.0]
    """
    xp = namespace(target)
    if xp is np:
        target[...] = to_numpy(source)
    else:
        target[...] = xp.asarray(source)
