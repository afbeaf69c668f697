"""Replacement of lost workers: who of the cluster takes their places, as soon as there is somebody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

from distributed import Client

from scaleml.clock import WALL
from scaleml.cluster import calls, config
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.host_facts import hosts_of
from scaleml.cluster.placement import Placement
from scaleml.cluster.recovery import replace_lost

LOOK: Final = 0.02
"""Seconds between two looks whether a worker has come; Dask's nannies need about 0.4 s to start one."""


class NotReplaced(Exception):
    """No worker came in time."""


@final
class Replacement:
    """Looks for workers in place of lost ones.

    Parameters
    ----------
    client : Client
        The cluster.
    placement : Placement
        Where the ranks were.
    names : mapping
        What the scheduler called those workers.
    noticed : float
        When the loss was noticed, on the wall's clock.

    Attributes
    ----------
    placement, noticed
        As given.
    """

    def __init__(self, client: Client, placement: Placement, names: Mapping[str, str], noticed: float) -> None:
        self.placement = placement
        self.noticed = noticed
        self._client = client
        self._names = names
        self._patience = config.seconds("recovery-timeout")
        self._deadline = WALL.now() + self._patience

    def look(self) -> Placement | None:
        """Return where the ranks can go on; None while there are not enough workers.

        Raises
        ------
        NotReplaced
            When none has come in time, or those that came cannot be used.
        """
        late = WALL.now() > self._deadline
        info = calls.identity(self._client)
        found = replace_lost(self.placement, info, self._names)
        if found is None:
            if late:
                raise NotReplaced(
                    f"no other worker has come within {self._patience:g} s (dask.config 'scaleml.recovery-timeout'): have a nanny or a "
                    "job restart it, keep a spare worker, or pass on_worker_lost='raise'"
                )
            return None
        try:
            hosts_of(self._client, found.workers, info)
        except StartFailed as error:  # it may just have gone again
            if late:
                raise NotReplaced(f"the worker that came in its place cannot be used: {error}") from error
            return None
        return found


def names_of(client: Client) -> dict[str, str]:
    """Return how the scheduler calls each worker, by address."""
    return {address: str(facts.get("name")) for address, facts in calls.identity(client).items()}
