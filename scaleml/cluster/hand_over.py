"""The hand-over from a run's ranks to others: who is to go on, whose data is brought there first, and who does if one of them is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, final

from distributed import Client

from scaleml.cluster import calls, failure_words
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.launcher import Generation
from scaleml.cluster.placement import place
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.cluster.stalled_workers import StalledWorkers
from scaleml.runtime.rank_change import RankChange

ATTEMPTS: Final = 5
"""How many times others are to go on from what one generation has handed over."""


@final
class HandOver:
    """Who goes on in place of a run's ranks.

    Parameters
    ----------
    client : Client
        The cluster.
    data : PlacedData
        The shards.
    """

    def __init__(self, client: Client, data: PlacedData) -> None:
        self._client = client
        self._data = data
        self._expected: Generation | None = None
        self._left: Generation | None = None
        self._attempts = 0

    def prepare(self, following: Generation) -> None:
        """Bring the data to where others will go on, and have them do so once all ranks have been told to hand over."""
        plan, training = following.plan, following.training
        self._data.bring(self._client, training, len(plan.shard_sizes), plan.opened)
        self._expected, self._left, self._attempts = following, None, 0

    def next_after(self, now: Generation, stalled: StalledWorkers) -> Generation:
        """Return who goes on now, of those who were expected to, as far as they are still there.

        Parameters
        ----------
        now : Generation
            Who has handed over; once more, those who were to go on and did not come to it.
        stalled : StalledWorkers
            Those that are not to be used.

        Raises
        ------
        StartFailed
            When nobody is there.
        """
        assert self._expected is not None, "somebody was expected"
        if self._left is None:
            self._left = now
        self._attempts += 1
        left, expected, number = self._left, self._expected, now.number + 1
        info = calls.identity(self._client)
        for address in stalled.among(info):
            del info[address]
        same = expected.change is None
        wanted = left.training if same else expected.training
        training = [address for address in wanted if address in info]
        training = training or [address for address in left.training if address in info]
        if not training or self._attempts > ATTEMPTS:
            raise StartFailed(failure_words.without_workers(wanted, is_empty=not info, attempts=self._attempts))
        if tuple(training) == expected.training and expected.number == left.number + 1:
            return replace(expected, number=number, planned=number)
        gpus = {one.training[rank]: one.plan.gpu(rank) for one in (left, expected) for rank in range(len(one.training))}
        plan = expected.plan.with_workers(len(training), [gpus.get(address) for address in training])
        placement = replace(place(plan.strategy, training, info), resources=expected.placement.resources)
        change = None if tuple(training) == left.training else RankChange.between(left.training, training)
        plan = replace(plan, change=plan.change if change is None else f"workers={len(training)}")
        return Generation(number, plan, placement, number, change)
