"""Links of a rank to the others of its run: opened from its endpoint, under Dask's TLS where the cluster has it."""

from __future__ import annotations

from collections.abc import Callable

from distributed import Worker

from scaleml import comm
from scaleml.cluster.endpoint import Endpoint
from scaleml.cluster.events import Stalled
from scaleml.cluster.rank_spec import RankSpec
from scaleml.cluster.reporter import Reporter
from scaleml.comm.communicator import Communicator


def connect(
    spec: RankSpec,
    endpoint: Endpoint,
    reporter: Reporter,
    worker: Worker,
    when_stalled: Callable[[], None] | None = None,
) -> Communicator:
    """Link a rank to all others, and return its communicator.

    Parameters
    ----------
    when_stalled : callable, optional
        Called, in the rank's thread, whenever it has waited for another one for as long as the timeout, before it waits on.
    """

    def on_stall(peer: int, step: int, waiting_for: str, seconds: float) -> bool:
        # The supervisor looks whether the peer's process is alive, and ends the run if not: a long step is no stall.
        if when_stalled is not None:
            when_stalled()
        reporter.send(Stalled(spec.rank, peer, step, waiting_for, seconds))
        return True

    tls = None
    if worker.address.startswith("tls"):
        tls = worker.security.get_connection_args("worker")["ssl_context"]
    return comm.connect(
        endpoint.listener,
        list(spec.book),
        rank=spec.rank,
        deadline_s=spec.start_timeout,
        timeout=spec.comm_timeout,
        on_stall=on_stall,
        tls=tls,
        scratch=worker.local_directory,
        shared_memory=spec.shared_memory,
    )
