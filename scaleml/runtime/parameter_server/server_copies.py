"""Copies of servers that a worker of another host or process keeps, now and then, while all go on at their own pace.

Of servers whose memory all workers see nobody needs copies. Others are asked for all that they have, about twenty times a second, or as
often as takes half a hundredth of the time; a server that is lost goes on from there, and what came since is lost with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np

from scaleml.runtime import recovery_points

if TYPE_CHECKING:
    from scaleml.runtime.training_rank import TrainingRank


@final
class ServerCopies:
    """What one worker keeps of servers.

    Parameters
    ----------
    rank : TrainingRank
        The worker.

    Attributes
    ----------
    due : float
        When they are to be asked again; infinite where there is nothing to be kept here.
    kept : dict of bytes
        The newest copy of each server, by rank.
    """

    def __init__(self, rank: TrainingRank) -> None:
        self._rank = rank
        self.kept: dict[int, bytes] = {}
        self.due: float = np.inf

    def begin(self) -> None:
        """Start counting: training begins."""
        rank = self._rank
        plan = rank.plan
        keeps_own_pace = (
            plan.replaces_lost and not plan.keeps_points
        )  # a copy between two points would push out the older one
        if keeps_own_pace and rank.has_servers and rank.group.size > 1 and rank.servers.keeps_copies:
            self.due = rank.world.clock.now()

    def look(self) -> None:
        """Ask the servers now."""
        now = self._rank.world.clock.now
        began = now()
        self.kept.update(self._rank.servers.keep(self._rank.step))
        ended = now()
        self.due = ended + max(recovery_points.SECONDS, (ended - began) / recovery_points.SHARE)
