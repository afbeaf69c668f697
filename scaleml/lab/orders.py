"""Orders: what a person asks of a lab, as values that wait in the controller's queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from scaleml.api.run import Run
from scaleml.api.trial import Trial
from scaleml.faults import Fault
from scaleml.models import Model
from scaleml.optim import Optimizer


@dataclass(frozen=True)
class Wish:
    """What to run.

    ``data`` returns the model, X and y, of which ``source`` names those that the lab loads itself; ``settings`` are those of
    ``compare``; an ``optimizer`` that runs are named by.
    """

    data: Callable[[], tuple[Model, Any, Any]]
    trials: tuple[Trial, ...]
    settings: dict[str, Any]
    optimizer: Optimizer | None = None
    source: str | None = None

    def told_from(self, common: dict[str, Any]) -> Wish:
        """Return the same with trials that name what differs from the `common` settings of the runs they stand beside."""
        names = ("batch_size", "epochs", "workers")
        new = {name: self.settings[name] for name in names if self.settings[name] != common[name]}
        trials = (
            replace(trial, **{name: value for name, value in new.items() if getattr(trial, name) is None})
            for trial in self.trials
        )
        # No trial's own: that would not be scaled to the rows of its updates.
        other = self.settings["optimizer"] if self.settings["optimizer"] != common["optimizer"] else None
        return replace(self, trials=tuple(trials), optimizer=other)


@dataclass(frozen=True)
class Go:
    """Start a comparison; with `fresh`, the runs so far are of something else and go."""

    wish: Wish
    fresh: bool = False


@dataclass(frozen=True)
class Tell:
    """Tell the live run: ``pause``, ``resume``, ``skip`` or ``stop``."""

    verb: str


@dataclass(frozen=True)
class Update:
    """Change settings of the live run, as ``Run.update`` takes them."""

    settings: dict[str, Any]


@dataclass(frozen=True)
class Break:
    """Inject a fault into the live run."""

    fault: Fault


@dataclass(frozen=True)
class Enough:
    """End this run, which has reached the target, and go on with the next."""

    run: Run


@dataclass(frozen=True)
class Clear:
    """Forget the runs so far."""


@dataclass(frozen=True)
class Sift:
    """Keep of the runs what ``change`` makes of them: some deleted, some renamed."""

    change: Callable[[tuple[Run, ...]], tuple[Run, ...]]


Order = Go | Tell | Update | Break | Enough | Clear | Sift
