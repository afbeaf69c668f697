"""The stand-in's ``cupy.cuda``: devices, streams, events, pinned memory, NCCL between threads; and what the host has waited for."""

import contextlib
import ctypes
import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np

DTYPES = {0: np.float32, 1: np.float64, 2: np.int32, 3: np.int64, 4: np.uint8}


class CUDARuntimeError(RuntimeError):
    pass


class Cuda:
    """One ``cupy.cuda``.

    Parameters
    ----------
    devices : int
        GPUs that the process sees.

    Attributes
    ----------
    waits : Counter
        How often the calling thread waited, by what it called; copies into the GPU's memory wait for nothing.
    pinned : set
        Addresses that are registered.
    """

    def __init__(self, devices):
        self.pinned, self.kernels = set(), Counter()
        self._local = threading.local()
        self._nccl = {}
        self._lock = threading.Lock()
        cuda = self

        class Stream:
            def __init__(self, non_blocking=False):
                assert non_blocking, "a blocking stream would wait for those of others"
                self.ptr = id(self)

            def use(self):
                cuda._local.stream = self

            def synchronize(self):
                assert not cuda.is_stuck, "the host would wait for ever"
                cuda.waits["synchronize"] += 1

            def wait_event(self, event):
                assert event.recorded

        class Event:
            recorded = False

            def __init__(self, disable_timing=False):
                pass

            def record(self, stream):
                self.recorded = True

            @property
            def done(self):
                cuda.waits["event"] += 1
                return self.recorded and not cuda.is_stuck

        Stream.null = Stream(non_blocking=True)
        self.Stream, self.Event = Stream, Event
        self.get_current_stream = lambda: getattr(self._local, "stream", Stream.null)
        self.Device = lambda index: SimpleNamespace(use=lambda: self._use(index))
        self.runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=lambda: devices,
            getDeviceProperties=lambda index: {"uuid": bytes([index] * 16), "name": b"Stand-in"},
            memGetInfo=lambda: (1 << 30, 1 << 31),
            hostRegister=self._register,
            hostUnregister=self.pinned.remove,
        )
        self.nccl = SimpleNamespace(
            available=True,
            get_version=lambda: 22000,
            NCCL_FLOAT32=0,
            NCCL_FLOAT64=1,
            NCCL_INT32=2,
            NCCL_INT64=3,
            NCCL_UINT8=4,
            NCCL_SUM=0,
            get_unique_id=self._unique_id,
            groupStart=lambda: None,
            groupEnd=lambda: None,
            NcclCommunicator=lambda size, identity, rank: _Nccl(self, size, identity, rank),
        )

    @property
    def waits(self):
        if not hasattr(self._local, "waits"):
            self._local.waits = Counter()
        return self._local.waits

    @property
    def is_stuck(self):
        """Whether the thread's stream waits for a peer that does not come."""
        return getattr(self._local, "stuck", False)

    @contextlib.contextmanager
    def queue_of(self, address):
        """Be what another library calls to queue its work on the thread's stream, which it says by its address."""
        assert address == self.get_current_stream().ptr != self.Stream.null.ptr
        self._local.queued = address
        try:
            yield
        finally:
            self._local.queued = None

    def check_is_queued(self):
        """Fail where another library gets arrays while it queues its work elsewhere."""
        assert getattr(self._local, "queued", None) == self.get_current_stream().ptr, "work of another stream"

    def _use(self, index):
        self._local.device = index

    def _register(self, address, nbytes, flags):
        if address in self.pinned:
            raise CUDARuntimeError("cudaErrorHostMemoryAlreadyRegistered")
        self.pinned.add(address)

    def _unique_id(self):
        with self._lock:
            identity = (len(self._nccl) + 1, *[-1] * 127)
            self._nccl[identity] = []
            return identity

    def meeting(self, size, identity):
        """Return what all members of an NCCL group share."""
        with self._lock:
            found = self._nccl[identity]
            if not found:
                found.append(SimpleNamespace(barrier=threading.Barrier(size), parts=[None] * size))
            return found[0]


class _Nccl:
    """``cupy.cuda.nccl.NcclCommunicator``: sums in rank order, by addresses, as the real one is given them."""

    def __init__(self, cuda, size, identity, rank):
        assert len(identity) == 128
        self._cuda, self._size, self._rank = cuda, size, rank
        self._meeting = cuda.meeting(size, identity)
        self._meet()

    def _meet(self):
        try:
            self._meeting.barrier.wait(20)
        except threading.BrokenBarrierError:
            self._cuda._local.stuck = True

    def abort(self):
        self._cuda._local.stuck = False
        self._meeting.barrier.abort()

    def _all(self, at, count, dtype):
        """Return what all ranks have at their addresses: copies."""
        self._cuda.kernels["nccl"] += 1
        mine = _memory(at, count, dtype).copy()
        self._meeting.parts[self._rank] = mine
        self._meet()
        parts = list(self._meeting.parts)
        self._meet()
        return (
            [mine if part is None or len(part) != count else part for part in parts] if self._cuda.is_stuck else parts
        )

    def _sum(self, at, count, dtype):
        first, *others = self._all(at, count, dtype)
        total = first.copy()  # all ranks see the same parts
        for other in others:
            total += other
        return total

    def allReduce(self, send, receive, count, dtype, op, stream):
        total = self._sum(send, count, dtype)
        _memory(receive, count, dtype)[:] = total

    def reduce(self, send, receive, count, dtype, op, root, stream):
        total = self._sum(send, count, dtype)
        if self._rank == root:
            _memory(receive, count, dtype)[:] = total

    def broadcast(self, send, receive, count, dtype, root, stream):
        _memory(receive, count, dtype)[:] = self._all(send, count, dtype)[root]

    def allGather(self, send, receive, count, dtype, stream):
        parts = self._all(send, count, dtype)
        _memory(receive, count * self._size, dtype)[:] = np.concatenate(parts)


def _memory(address, count, dtype):
    kind = np.dtype(DTYPES[dtype])
    nbytes = count * kind.itemsize
    return np.frombuffer((ctypes.c_char * nbytes).from_address(address), kind) if nbytes else np.empty(0, kind)
