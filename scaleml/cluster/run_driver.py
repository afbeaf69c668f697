"""What a run needs of its driver, wherever that drives: in a thread of this process, or on a worker for a run that was detached."""

from __future__ import annotations

from typing import Protocol

from distributed import Client

from scaleml.arrays import Array
from scaleml.cluster import events
from scaleml.cluster.launcher import Generation
from scaleml.cluster.placement import Placement
from scaleml.cluster.results import Result
from scaleml.runtime.plan import Plan
from scaleml.telemetry.history import History


class RunDriver(Protocol):
    """The driver of a run.

    Attributes
    ----------
    client : Client
        The cluster.
    history : History
        What happened.
    name : str
        What it is called in logs.
    generation : Generation
        Who trains now.
    state, error, result
        How the run stands, why it failed, what it has left.
    """

    client: Client
    history: History

    @property
    def name(self) -> str: ...
    @property
    def generation(self) -> Generation: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def placement(self) -> Placement: ...
    @property
    def topology(self) -> str | None: ...
    @property
    def state(self) -> events.RunState: ...
    @property
    def error(self) -> str | None: ...
    @property
    def result(self) -> Result | None: ...
    @property
    def is_alive(self) -> bool: ...
    def join(self) -> None:
        """Wait for the end of whoever drives it."""
        ...

    def newest_params(self) -> Array | None:
        """Return the parameters that rank 0 kept last, if the run keeps them and it is still there."""
        ...
