"""JAX's processes: ``jax.distributed`` between the ranks of a program, so that arrays are sharded over all of them."""

from __future__ import annotations

import contextlib
import gc
from typing import Any, Final, final

import jax
from jax.extend import backend as jax_backend

from scaleml.clock import WALL
from scaleml.comm.foreign_connections import listen, listening_ports, shut_connections
from scaleml.frameworks.backend import Backend, Place

_LEAVING: Final = 3.0
"""Seconds for which the first rank, which the others hang on, waits for them when one has failed."""
_LEAVE: Final = 0.3
"""Seconds that they need to leave, after they have said so."""


@final
class JaxProcesses:
    """``jax.distributed`` between the ranks; rank 0 has the coordinator.

    Afterwards the process's devices are its own again: arrays that an earlier program has left there are no longer valid.

    Parameters
    ----------
    place : Place
        Where this rank is.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._started = False
        self._before: frozenset[int] = frozenset()
        self._port = 0

    def start(self) -> None:
        """Meet at the coordinator.

        Raises
        ------
        RuntimeError
            Where this process has computed with JAX before: its devices are fixed then.
        """
        place, links = self._place, self._place.links
        is_used = jax.distributed.is_initialized() or _is_used()
        if any(links.allgather_bytes(bytes([is_used]))[rank] == b"\1" for rank in range(links.size)):
            raise RuntimeError(
                ("this worker's process" if is_used else "the process of another rank")
                + " has used JAX before, on devices of its own, and cannot join others any more: restart the workers "
                "(client.restart(), or scaleml.close() for the embedded cluster), then call spmd(backend='jax') first"
            )
        self._before = listening_ports()
        with contextlib.ExitStack() as held:  # until JAX takes it, which cannot be given one
            free = held.enter_context(listen(place.host, place.port_range)).getsockname()[1] if links.rank == 0 else 0
            host, port = links.allgather_bytes(f"{place.host} {free}".encode())[0].decode().split()
        self._port = int(port)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        # By default a rank that dies takes the processes of all others with it, which are Dask's workers.
        jax.config.update("jax_enable_recoverability", True)
        self._started = True
        jax.distributed.initialize(
            address,
            links.size,
            links.rank,
            cluster_detection_method="deactivate",
            coordinator_bind_address=address,
            initialization_timeout=int(place.timeout),
        )

    def interrupt(self) -> None:
        """Shut the connections that others have made to this rank, but for those to the coordinator, without which they would end."""
        shut_connections([*self._before, self._port])

    def leave(self, failed: bool) -> None:
        """Forget the devices of the others, and leave the coordinator: the rank that has it last, for with it all others end."""
        if not self._started:
            return
        self._started = False
        state, links = _state(), self._place.links
        jax_backend.clear_backends()
        gc.collect()
        with contextlib.suppress(Exception):
            if links.rank == 0:
                self._await_others(state.client, failed)
            elif failed:
                state.client.key_value_set(f"scaleml/left/{links.rank}", "yes")
        with contextlib.suppress(Exception):
            jax.distributed.shutdown()
        with contextlib.suppress(Exception):
            if links.rank > 0 and not failed:
                links.barrier()
        with contextlib.suppress(Exception):
            state.process_id, state.num_processes = 0, 1

    def is_echo(self, error: BaseException) -> bool:
        """Whether an error says that another rank's connection is closed."""
        return "Connection closed by peer" in str(error) or "Connection reset by peer" in str(error)

    def _await_others(self, client: Any, failed: bool) -> None:
        if not failed:
            self._place.links.barrier()
            return
        for rank in range(1, self._place.links.size):
            client.blocking_key_value_get(f"scaleml/left/{rank}", int(1000 * _LEAVING))
        WALL.sleep(_LEAVE)


def _state() -> Any:
    """Return what JAX knows of the other processes: there is no public way to have it forget which one it was."""
    from jax._src import distributed

    return distributed.global_state


def _is_used() -> bool:
    from jax._src import xla_bridge

    return bool(xla_bridge.backends_are_initialized())


_: type[Backend] = JaxProcesses
