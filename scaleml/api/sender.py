"""What a run needs of whoever brings it commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import EllipsisType
from typing import Protocol

from scaleml.cluster.placement import Workers
from scaleml.runtime.plan import Plan
from scaleml.strategies import Strategy


class Sender(Protocol):
    """Tells a run what to do, and waits until it has done it; see `CommandSender`.

    Attributes
    ----------
    is_detached : bool
        Whether the run goes on without this process.
    """

    @property
    def is_detached(self) -> bool: ...

    def plan(self, *, applied: bool) -> Plan:
        """Return the plan in force, or the one that will be once all commands have taken effect."""
        ...

    def on_change(self) -> None:
        """Wake whoever waits."""
        ...

    def wait_until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until a condition holds; return whether it does."""
        ...

    def stop(self) -> None:
        """End the run; return when it is over."""
        ...

    def tell(self, verb: str, settings: Mapping[str, object] | None = None) -> None:
        """Tell the ranks something; return when all have done it."""
        ...

    def update(
        self,
        strategy: Strategy | None,
        learning_rate: float | None,
        batch_size: int | None,
        workers: Workers | EllipsisType,
    ) -> None:
        """Change settings in mid-run; ``...`` for the same workers."""
        ...
