"""The result of a run: the whole vector, from what its ranks have left of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distributed import Client, Future

from scaleml.arrays import Array
from scaleml.cluster import calls
from scaleml.models.buffers import Buffers
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.process_grid import ParameterPartition

Generation = tuple[Mapping[int, Future[Outcome | None]], ParameterPartition]
"""The tasks of ranks by their numbers, and which parameters each of them held."""


@dataclass(frozen=True)
class Result:
    """What a run has left.

    Parameters
    ----------
    params : (P,) array
        The last parameters.
    outcome : Outcome
        How the rank ended that completed them.
    best : (P,) array or None
        The parameters of the best held-out evaluation; None where nothing was evaluated, or a slice of them is lost.
    evaluation : int
        Which one that was; -1 without ``best``.
    buffers, best_buffers : Buffers or None
        The model's beside ``params`` and ``best``; None where it has none, or they are lost.
    """

    params: Array
    outcome: Outcome
    best: Array | None = None
    evaluation: int = -1
    buffers: Buffers | None = None
    best_buffers: Buffers | None = None


def gather_result(client: Client, generations: Sequence[Generation]) -> Result | None:
    """Return the parameters of the first generation that has left them.

    Of a rank that held all parameters they are taken as they are, else put together from the slices of those who own them. None
    where a slice is missing in each generation.
    """
    for futures, partition in generations:
        left: dict[int, Outcome] = {}
        for rank, future in futures.items():
            outcome = _outcome_of(client, future)
            if outcome is None or outcome.params is None:
                continue
            left[rank] = outcome
            whole = partition.assemble({rank: each.params for rank, each in left.items() if each.params is not None})
            if whole is not None:
                buffers = next((each.buffers for each in left.values() if each.buffers is not None), None)
                best, number, best_buffers = _best_of(left, partition)
                return Result(whole, outcome, best, number, buffers, best_buffers)
    return None


def _best_of(left: Mapping[int, Outcome], partition: ParameterPartition) -> tuple[Array | None, int, Buffers | None]:
    """Return the best parameters, the number of their evaluation, the newest that all the slices are known of, and their buffers."""
    number = max(outcome.best.evaluation for outcome in left.values())
    known = {
        rank: outcome for rank, outcome in left.items() if outcome.best.is_known and outcome.best.evaluation == number
    }
    parts = {
        rank: outcome.params if outcome.best.params is None else outcome.best.params for rank, outcome in known.items()
    }
    best = partition.assemble({rank: part for rank, part in parts.items() if part is not None})
    if best is None:
        return None, -1, None
    return best, number, next(iter(known.values())).best.buffers


def _outcome_of(client: Client, future: Future[Outcome | None]) -> Outcome | None:
    if client.status == "running" and future.status != "lost":  # with its worker: no other may run it
        with contextlib.suppress(Exception):
            return future.result(timeout=calls.CALL_TIMEOUT)
    return None
