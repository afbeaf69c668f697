"""The communicator of a program: collectives on NumPy and CuPy arrays, PyTorch tensors and numbers, in place as MPI's are."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeVar, final

import numpy as np

from scaleml.arrays import Array
from scaleml.comm import Communicator
from scaleml.frameworks.host_array import HostArray, narrow, widened

Op = Literal["sum", "mean", "min", "max"]
Value = TypeVar("Value")

_LINKED: Final = frozenset({"float32", "float64", "int64"})
"""What links sum as it is."""


@final
class RankCommunicator:
    """The ranks of a program, as one of them sees them. Made by `scaleml.spmd`; `scaleml.communicator` returns it.

    Every rank calls the same collectives in the same order, with the same shapes and dtypes. Arrays and tensors are changed **in
    place** and returned, numbers only returned. On a CPU a tensor is not copied; what lies on a GPU goes through the host's memory.
    Sums have the same bits on all ranks.

    Parameters
    ----------
    links : Communicator
        What it is made of.

    Attributes
    ----------
    rank, size : int
        Which rank this is, and how many there are.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.comm import inprocess
    >>> def program(links):
    ...     ranks = RankCommunicator(links)
    ...     x = np.full(2, ranks.rank + 1.0)
    ...     ranks.allreduce(x, "mean")
    ...     return x.tolist(), ranks.allreduce(ranks.rank), ranks.broadcast(ranks.rank, root=1)
    >>> inprocess.run(2, program)
    [([1.5, 1.5], 1, 1), ([1.5, 1.5], 1, 1)]
    """

    def __init__(self, links: Communicator) -> None:
        self._links = links
        self.rank: Final = links.rank
        self.size: Final = links.size
        self._owner: Final = os.getpid(), threading.get_ident()

    def __repr__(self) -> str:
        return f"<RankCommunicator: rank {self.rank} of {self.size}>"

    @property
    def links(self) -> Communicator:
        """The communicator of the engine beneath it, of NumPy arrays: background collectives, shared memory, bytes."""
        self._check()
        return self._links

    def allreduce(self, x: Value, op: Op = "sum") -> Value:
        """Combine `x` over all ranks, element by element, in place.

        Parameters
        ----------
        x : array, tensor or number
            Of one shape and dtype on all ranks.
        op : {"sum", "mean", "min", "max"}
            Half precision is summed in single, and rounded once.

        Returns
        -------
        array, tensor or number
            `x`; of a number, another one.

        Raises
        ------
        ValueError
            For a mean of integers, a sum of booleans, and an array that cannot be written.
        OverflowError
            On all ranks, where a sum of integers has no room in their dtype.
        Mismatch
            On all ranks, where they call different collectives, or one with different lengths or dtypes.
        PeerLost, PeerTimeout, Aborted
        """
        links = self.links
        host = _writable(x)
        if op in ("min", "max"):
            self._extreme(host, np.minimum if op == "min" else np.maximum)
        elif op in ("sum", "mean"):
            _check_summed(host, op)
            sums = _summable(host)
            links.allreduce(sums.reshape(-1))
            if op == "mean":
                sums /= self.size
            _take_sums(host, sums)
        else:
            raise ValueError(f"op={op!r}: must be 'sum', 'mean', 'min' or 'max'")
        return host.restored()

    def broadcast(self, x: Value, root: int = 0) -> Value:
        """Give all ranks the `x` of rank `root`, in place.

        Parameters
        ----------
        x : array, tensor, number, or a dict or list of these
            A module's ``state_dict()``, say, whose tensors are the module's own. Shapes and dtypes are the same on all ranks.
        root : int
            Whose.

        Returns
        -------
        same as `x`
            Of numbers others, in a dict or list of their own.
        """
        links = self.links
        if isinstance(x, Mapping):
            self._check_names(x)
            return type(x)((name, self.broadcast(part, root)) for name, part in x.items())  # type: ignore[call-arg]
        if isinstance(x, list | tuple):
            self._check_names(x)
            return type(x)([self.broadcast(part, root) for part in x])
        host = _writable(x, changed=self.rank != root)
        links.broadcast(_bits(host.array), root)
        return host.restored()

    def allgather(self, x: Value) -> list[Value]:
        """Return every rank's `x`, in rank order: to be stacked or concatenated, or not.

        Parameters
        ----------
        x : array, tensor or number
            Of one dtype on all ranks; shapes may differ.
        """
        links = self.links
        host = HostArray(x)
        told = links.allgather_bytes(f"{host.kind} {' '.join(map(str, host.array.shape))}".encode())
        kinds, shapes = zip(*(_described(words) for words in told), strict=True)
        if len(set(kinds)) > 1:
            raise ValueError(f"allgather of {', '.join(kinds)}, by rank: all ranks must pass one dtype")
        parts: Any
        if len(set(shapes)) == 1:
            parts = links.allgather(_bits(host.array))
        else:
            parts = [np.frombuffer(part, np.uint8) for part in links.allgather_bytes(host.array.tobytes())]
        arrays = [
            np.array(part).view(host.array.dtype).reshape(shape) for part, shape in zip(parts, shapes, strict=True)
        ]
        return [host.like(array) for array in arrays]

    def barrier(self) -> None:
        """Return when all ranks have called it."""
        self.links.barrier()

    def send(self, x: object, dest: int, tag: int = 0) -> None:
        """Send an array or tensor to rank `dest`."""
        self.links.send(_bits(HostArray(x).array), dest, tag)

    def recv(self, x: Value, source: int, tag: int = 0) -> Value:
        """Receive into `x` what rank `source` has sent, of the same shape and dtype, and return `x`."""
        host = _writable(x)
        self.links.recv(source, tag, out=_bits(host.array))
        return host.restored()

    def split(self, color: int | None, key: int = 0) -> RankCommunicator | None:
        """Make one communicator of all ranks with the same `color`, ordered by (`key`, rank); None for those whose color is None."""
        part = self.links.split(color, key)
        return None if part is None else RankCommunicator(part)

    def _extreme(self, host: HostArray, of: np.ufunc) -> None:
        if host.array.dtype.kind == "c":
            raise ValueError("complex numbers have no order: op must be 'sum' or 'mean'")
        wide = widened(host)
        mine = np.ascontiguousarray(host.array if wide is None else wide)
        rows = self._links.allgather(_bits(mine)).reshape(self.size, -1)
        most = of.reduce(rows.view(mine.dtype), axis=0).reshape(mine.shape) if mine.size else mine
        if wide is None:
            host.array[...] = most
        else:
            narrow(host, most)

    def _check_names(self, x: Mapping[Any, object] | Sequence[object]) -> None:
        """Raise on all ranks where they would pass different parts: one after the other these might still fit."""
        mine = repr(list(x) if isinstance(x, Mapping) else len(x)).encode()
        sums = self._links.allgather_bytes(zlib.crc32(mine).to_bytes(4, "little"))
        if len(set(sums)) > 1:
            raise ValueError(f"broadcast of different things: rank {self.rank} has {mine.decode()[:200]}")

    def _check(self) -> None:
        if (os.getpid(), threading.get_ident()) != self._owner:
            raise RuntimeError(
                "a rank's communicator is used in its own thread only, neither in another one nor in a process forked off it: "
                "hand over what is to be sent to the function that spmd has called"
            )


def _writable(x: object, changed: bool = True) -> HostArray:
    host = HostArray(x)
    if changed and isinstance(x, np.ndarray) and not x.flags.writeable:
        raise ValueError("the array is read-only, and collectives change arrays in place: pass x.copy()")
    if isinstance(x, np.ndarray) and not x.flags.writeable:
        host.array = host.array.copy()  # of the root: only read, but links want to be able to write
    return host


def _check_summed(host: HostArray, op: Op) -> None:
    kind = host.array.dtype.kind
    if kind == "b":
        raise ValueError("a sum of booleans: use op='max' for any, op='min' for all, or make them integers")
    if host.kind.startswith("float8"):
        raise ValueError(f"a sum of {host.kind}: make it float16 or wider first")
    if op == "mean" and kind in "iu" and host.kind != "bfloat16":
        raise ValueError(f"the mean of {host.kind} is no integer: make it a float first, or use op='sum'")
    if kind not in "iufc" or host.array.dtype.itemsize > 16 or host.array.dtype == np.longdouble:
        raise ValueError(f"{host.kind} cannot be summed between ranks: make it float64")


def _summable(host: HostArray) -> Array:
    """Return the elements as links can sum them: themselves, or a wider copy."""
    array = host.array
    wide = widened(host)
    if wide is not None:
        return wide
    if array.dtype.kind == "c":
        return np.atleast_1d(array).view(array.real.dtype)
    if str(array.dtype) in _LINKED:
        return array
    return array.astype(np.int64)  # small integers; those of uint64 wrap round alike


def _take_sums(host: HostArray, sums: Array) -> None:
    array = host.array
    if widened(host) is not None:
        narrow(host, sums)
    elif array.dtype.kind in "iu" and sums is not array and array.dtype != np.uint64:
        room = np.iinfo(array.dtype)
        if sums.size and not (room.min <= sums.min() and sums.max() <= room.max):
            raise OverflowError(f"the sum over the ranks has no room in {array.dtype}: make it int64 first")
        array[...] = sums
    elif sums is not array and not np.shares_memory(sums, array):
        array[...] = sums.astype(array.dtype, copy=False)


def _bits(array: Array) -> Array:
    """Return the bytes of a contiguous array, the same memory."""
    return array.reshape(-1).view(np.uint8)


def _described(words: bytes) -> tuple[str, tuple[int, ...]]:
    kind, *shape = words.decode().split()
    return kind, tuple(map(int, shape))
