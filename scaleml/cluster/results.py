"""The result of a run: the whole vector, from what its ranks have left of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from distributed import Client, Future

from scaleml.arrays import Array
from scaleml.cluster import calls
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.process_grid import ParameterPartition

Generation = tuple[Mapping[int, Future[Outcome | None]], ParameterPartition]
"""The tasks of ranks by their numbers, and which parameters each of them held."""


def gather_params(client: Client, generations: Sequence[Generation]) -> tuple[Array, Outcome] | None:
    """Return the parameters (P,) of the first generation that has left them, and the outcome that completed them.

    Of a rank that held all parameters they are taken as they are, else put together from the slices of those who own them. None
    where a slice is missing in each generation.
    """
    for futures, partition in generations:
        left: dict[int, Array] = {}
        for rank, future in futures.items():
            outcome = _outcome_of(client, future)
            if outcome is None or outcome.params is None:
                continue
            left[rank] = outcome.params
            whole = partition.assemble(left)
            if whole is not None:
                return whole, outcome
    return None


def _outcome_of(client: Client, future: Future[Outcome | None]) -> Outcome | None:
    if client.status == "running":
        with contextlib.suppress(Exception):
            return future.result(timeout=calls.CALL_TIMEOUT)
    return None
