"""Callbacks: whoever follows a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scaleml.runtime.epochs import OnEpoch


@dataclass(frozen=True)
class Watch:
    """Whoever follows a run.

    Parameters
    ----------
    on_epoch : sequence of callables
        Told of each epoch.
    on_look : callable, optional
        Called with a cluster's run ten times a second.
    snapshots : bool
        Whether parameters will be asked for.
    """

    on_epoch: Sequence[OnEpoch] = ()
    on_look: Callable[[Any], None] | None = None
    snapshots: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether nobody wants to know."""
        return not self.on_epoch and self.on_look is None
