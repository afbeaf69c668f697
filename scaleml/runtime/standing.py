"""Standing: what a rank that keeps its own pace leaves, as it is, when others are lost: nobody goes back to an earlier step.

Rows count where they are in parameters that somebody has: at servers, in shared memory, with a rank itself. So what a lost rank had taken,
others know, and whoever takes its place goes on with the rows after those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scaleml.runtime.parameter_server.shared_server import TALLY
from scaleml.runtime.train_state import TrainState
from scaleml.telemetry.columns import Measures


@dataclass(frozen=True)
class Standing:
    """How a rank stands, beside its train state.

    Parameters
    ----------
    began : int
        Rows that all ranks had consumed when the first of these ranks began.
    taken : tuple of float
        Rows since then of each rank that trains, as far as this one knows.
    bases : tuple of int
        Rows that are counted for each rank's number, beside those; of a server nothing.
    step : int
        Of a rank that trains, its steps.
    commands : int
        How many of the run's commands need not be told again.
    slices : dict
        What servers had, by rank: a copy, or what lies in shared memory.
    evaluations : tuple
        The newest, for a history that the first rank has not told of them.
    """

    began: int
    taken: tuple[float, ...]
    bases: tuple[int, ...] = ()
    step: int = 0
    commands: int = 0
    slices: Mapping[int, TrainState] = field(default_factory=dict)
    evaluations: tuple[Measures, ...] = ()

    @property
    def facts(self) -> dict[str, object]:
        """What the client has to know of it, in plain values: for each slice, how many updates are in it; -1: all."""
        versions = [[server, -1 if TALLY in state.arrays else state.step] for server, state in self.slices.items()]
        taken = [float(rows) for rows in self.taken]
        return {
            "began": self.began,
            "taken": taken,
            "bases": [*self.bases],
            "step": self.step,
            "commands": self.commands,
            "copies": versions,
        }
