"""PyTorch's process group between the ranks of a program, and the environment that torchrun would have made."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, final

import psutil
import torch.distributed as dist
from torch.distributed import distributed_c10d

from scaleml.comm.foreign_connections import listen, listening_ports, shut_connections
from scaleml.frameworks.backend import Backend, Place

_ECHOES: Final = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed", "recvBytes")
"""What PyTorch's errors say where another rank has gone."""
_HOMES: Final = (dist, distributed_c10d)
_init: Final = dist.init_process_group
_destroy: Final = dist.destroy_process_group
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


@final
class ProcessGroup:
    """``torch.distributed`` between the ranks.

    Rank 0 holds the store that all meet at, on a port that is free; its address stands in ``MASTER_ADDR`` and ``MASTER_PORT``. What goes
    over these connections is neither encrypted nor asked for a secret: PyTorch has neither.

    Parameters
    ----------
    place : Place
        Where this rank is.
    backend : str or None
        PyTorch's name of it; None sets the environment alone, and the function calls ``init_process_group`` itself.
    """

    def __init__(self, place: Place, backend: str | None) -> None:
        self._place = place
        self._backend = backend
        self._store: Any = None
        self._environment: dict[str, str | None] = {}
        self._before: frozenset[int] = frozenset()
        self._kept: list[Any] = []

    def start(self) -> None:
        """Meet at the store, and make the default group.

        Raises
        ------
        RuntimeError
            Where this process has a group already, which an earlier function has left.
        """
        if dist.is_initialized():
            raise RuntimeError(
                "this worker's process has a torch.distributed group already, which something else has started there: have it call "
                "torch.distributed.destroy_process_group(), or restart the worker (client.restart_workers([address]))"
            )
        self._before = listening_ports()
        place, links = self._place, self._place.links
        listener = listen(place.host, place.port_range) if links.rank == 0 else None
        port = listener.getsockname()[1] if listener is not None else 0
        host, port = links.allgather_bytes(f"{place.host} {port}".encode())[0].decode().split()
        self._store = self._meet(host, int(port), listener)
        self._set(self._variables(host, port))
        if self._backend is not None:
            _init(self._backend, store=self._store, rank=links.rank, world_size=links.size)
        _replace(self._init_again if self._backend is not None else _init, self._destroy)

    def interrupt(self) -> None:
        """Shut the connections that others have made to this rank: whoever waits for one then gets an error, on both sides."""
        shut_connections(self._before)

    def leave(self, failed: bool) -> None:
        """Destroy all groups, and put the environment back."""
        _replace(_init, _destroy)
        with contextlib.suppress(Exception):
            if dist.is_initialized():
                self._destroy()
        gc.collect()  # modules on a group hold it in circles
        self._kept.clear()
        self._store = None
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._environment = {}
        self.interrupt()  # whoever keeps a group for good keeps no other rank waiting

    def is_echo(self, error: BaseException) -> bool:
        """Whether an error says that a peer's connection is closed."""
        return isinstance(error, RuntimeError) and any(words in str(error) for words in _ECHOES)

    def _init_again(self, backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        """Stand for ``init_process_group`` while the function runs: the first thing that a script for torchrun calls."""
        if not dist.is_initialized():  # it has destroyed the group before
            _init(backend, *args, **kwargs)
        elif backend not in (None, self._backend):
            raise ValueError(
                f"init_process_group({backend!r}), but spmd(backend={self._backend!r}) has made the default group already: pass the same "
                "to both, or backend='torchrun' to spmd, which leaves it to the function"
            )

    def _destroy(self, group: Any = None) -> None:
        """Stand for ``destroy_process_group``: keep what is destroyed until nothing else of the function is left.

        PyTorch lets go of Python's lock where Python gives a group up last, but not where a ``DistributedDataParallel`` does: its threads
        may wait for that lock then, and the process with them.
        """
        self._kept += distributed_c10d._world.pg_map
        _destroy(group)

    def _meet(self, host: str, port: int, listener: Any) -> Any:
        store: Any = vars(dist)["TCPStore"]  # PyTorch's annotations do not have it
        return store(
            host,
            port,
            self._place.links.size,
            is_master=listener is not None,
            timeout=timedelta(seconds=self._place.timeout),
            wait_for_workers=False,
            master_listen_fd=None if listener is None else listener.detach(),
        )

    def _variables(self, host: str, port: str) -> dict[str, str]:
        """Return what torchrun sets. Ranks that see the same devices are numbered among each other: LOCAL_RANK is a device's number."""
        links = self._place.links
        seen = f"{links.hosts[links.rank]} {os.environ.get(_VISIBLE, '')}".encode()
        beside = [rank for rank, other in enumerate(links.allgather_bytes(seen)) if other == seen]
        variables = {
            "MASTER_ADDR": host,
            "MASTER_PORT": port,
            "RANK": str(links.rank),
            "WORLD_SIZE": str(links.size),
            "LOCAL_RANK": str(beside.index(links.rank)),
            "LOCAL_WORLD_SIZE": str(len(beside)),
            "GROUP_RANK": str(links.hosts[links.rank]),
            "TORCHELASTIC_USE_AGENT_STORE": "True",  # env:// then joins the store instead of opening one
        }
        interface = _interface(self._place.host)
        if interface is not None:
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                variables[name] = os.environ.get(name, interface)
        return variables

    def _set(self, variables: dict[str, str]) -> None:
        self._environment = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)


def _replace(init: Callable[..., None], destroy: Callable[..., None]) -> None:
    for module in _HOMES:
        vars(module).update(init_process_group=init, destroy_process_group=destroy)


def _interface(host: str) -> str | None:
    """Return the network interface that has an address; None for a name that is none of this host's addresses."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address.partition("%")[0] == host for address in addresses):
            return name
    return None


_: type[Backend] = ProcessGroup
