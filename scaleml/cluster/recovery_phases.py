"""Recovery phases: the seconds of each part of a recovery, one after the other, as the client sees them."""

from __future__ import annotations

from typing import Final, final

from scaleml.clock import WALL
from scaleml.telemetry.recovery import PHASES


@final
class RecoveryPhases:
    """A stopwatch that goes from one phase to the next; a phase that comes again, where others are lost as well, adds up.

    Parameters
    ----------
    since : float
        When who was lost was last heard, on the wall's clock.

    Attributes
    ----------
    seconds : dict
        Of each phase that is over.
    """

    def __init__(self, since: float) -> None:
        self.seconds: Final[dict[str, float]] = {}
        self._since = since

    def end(self, phase: str, at: float | None = None) -> None:
        """Note that a phase is over, now or then, and the next one begins."""
        assert phase in PHASES, phase
        now = max(self._since, WALL.now() if at is None else at)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now
