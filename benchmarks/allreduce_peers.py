"""The measured side of `benchmarks.allreduce`: one rank of one pair."""

import os
import socket
import sys
from abc import ABC, abstractmethod
from typing import Any, final

import numpy as np

from .pairs import answer_requests, dial, seconds

WARM_UP = 3
# Both ranks are started by one driver that nobody else can reach: the token only has to be the same.
TOKEN = bytes(32)


class Peer(ABC):
    """One rank: it gets an array to sum and a call that sums it in place, over two ranks."""

    rank: int

    @abstractmethod
    def array(self, items: int) -> np.ndarray:
        """Return the array of `items` float32 that `sum` works on."""

    @abstractmethod
    def sum(self, items: int) -> Any:
        """Return a call without arguments that sums the array of `items` in place."""

    def answer(self, message: dict[str, Any]) -> Any:
        """Do what the driver asks."""
        items = message.get("items", 0)
        if message["do"] == "check":
            parts = [np.random.default_rng(rank).standard_normal(items, dtype=np.float32) for rank in (0, 1)]
            array = self.array(items)
            array[:] = parts[self.rank]
            self.sum(items)()
            return bool(np.array_equal(array, parts[0] + parts[1]))
        if message["do"] == "time":
            self.array(items)[:] = 0  # sums of sums would overflow
            call = self.sum(items)
            seconds(call, WARM_UP)
            return seconds(call, message["calls"])
        return getattr(self, message["do"])(message)


@final
class Scaleml(Peer):
    """scaleml.comm, through shared memory or TCP."""

    def __init__(self, shared_memory: bool) -> None:
        self.rank = int(sys.argv[-2])
        self.shared_memory = shared_memory
        self.arrays: dict[int, np.ndarray] = {}

    def listen(self, message: dict[str, Any]) -> Any:
        """Open this rank's listener and return its address."""
        from scaleml.comm import Listener

        self.listener = Listener("127.0.0.1", token=TOKEN, run=1, generation=0, rank=self.rank)
        return self.listener.address

    def connect(self, message: dict[str, Any]) -> Any:
        """Join the group of the book's ranks."""
        from scaleml.comm import connect

        book = [(host, port) for host, port in message["book"]]
        self.group = connect(
            self.listener,
            book,
            rank=self.rank,
            deadline_s=30.0,
            timeout=30.0,
            on_stall=None,
            scratch=None,
            shared_memory=self.shared_memory,
        )

    def array(self, items: int) -> np.ndarray:
        """Return the group's buffer of that size, made once."""
        if items not in self.arrays:
            self.arrays[items] = self.group.buffer(items, np.float32)
        return self.arrays[items]

    def sum(self, items: int) -> Any:
        """Return the group's all-reduce."""
        array, allreduce = self.array(items), self.group.allreduce
        return lambda: allreduce(array)


@final
class Gloo(Peer):
    """PyTorch's torch.distributed on gloo, one thread."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self.rank = int(sys.argv[-2])
        self.tensors: dict[int, torch.Tensor] = {}

    def port(self, message: dict[str, Any]) -> int:
        """Return a free port."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])

    def connect(self, message: dict[str, Any]) -> None:
        """Make the default process group, over the loopback as the others."""
        import torch.distributed

        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        where = f"tcp://127.0.0.1:{message['port']}"
        torch.distributed.init_process_group("gloo", init_method=where, rank=self.rank, world_size=2)

    def array(self, items: int) -> np.ndarray:
        """Return the tensor of that size, made once, as an array on the same memory."""
        import torch

        if items not in self.tensors:
            self.tensors[items] = torch.zeros(items, dtype=torch.float32)
        array: np.ndarray = self.tensors[items].numpy()
        return array

    def sum(self, items: int) -> Any:
        """Return torch.distributed.all_reduce."""
        from torch.distributed import all_reduce

        self.array(items)
        tensor = self.tensors[items]
        return lambda: all_reduce(tensor)


@final
class Mpi(Peer):
    """mpi4py's Allreduce in place, on mpich."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self.world, self.in_place = MPI.COMM_WORLD, MPI.IN_PLACE
        self.rank = self.world.Get_rank()
        self.arrays: dict[int, np.ndarray] = {}

    def array(self, items: int) -> np.ndarray:
        """Return the array of that size, made once."""
        return self.arrays.setdefault(items, np.zeros(items, dtype=np.float32))

    def sum(self, items: int) -> Any:
        """Return MPI_Allreduce with MPI_IN_PLACE."""
        array, allreduce, in_place = self.array(items), self.world.Allreduce, self.in_place
        return lambda: allreduce(in_place, array)


def _peer(kind: str) -> Peer:
    if kind == "mpi":
        return Mpi()
    return Gloo() if kind == "gloo" else Scaleml(shared_memory=kind == "shared")


if __name__ == "__main__":
    peer = _peer(sys.argv[1])
    pipe = dial()
    pipe.send({"rank": peer.rank})
    answer_requests(pipe, peer.answer)
