"""The result of a run: the whole vector, from what its ranks have left of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distributed import Client, Future

from scaleml.arrays import Array
from scaleml.cluster import calls
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
    """

    params: Array
    outcome: Outcome
    best: Array | None = None
    evaluation: int = -1


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
                return Result(whole, outcome, *_best_of(left, partition))
    return None


def _best_of(left: Mapping[int, Outcome], partition: ParameterPartition) -> tuple[Array | None, int]:
    """Return the best parameters and the number of their evaluation, the newest that all the slices are known of."""
    number = max(outcome.best.evaluation for outcome in left.values())
    known = {
        rank: outcome for rank, outcome in left.items() if outcome.best.is_known and outcome.best.evaluation == number
    }
    parts = {
        rank: outcome.params if outcome.best.params is None else outcome.best.params for rank, outcome in known.items()
    }
    best = partition.assemble({rank: part for rank, part in parts.items() if part is not None})
    return best, -1 if best is None else number


def _outcome_of(client: Client, future: Future[Outcome | None]) -> Outcome | None:
    if client.status == "running":
        with contextlib.suppress(Exception):
            return future.result(timeout=calls.CALL_TIMEOUT)
    return None
