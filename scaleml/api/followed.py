"""A run that is followed: what callbacks see of it beside what everybody sees, and the wait for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaleml.api.parameters import parameters_of
from scaleml.api.run_facts import RunFacts
from scaleml.callbacks.followers import CallbackList, Followers
from scaleml.cluster.run_driver import RunDriver


class Followed:
    """The part of a `Run` that callbacks hang on."""

    _driver: RunDriver
    _facts: RunFacts
    _followers = Followers()

    @property
    def parameters(self) -> Mapping[str, object]:
        """What it was started with, by name, as loggers write it: strategy, optimizer, batch size, epochs, seed, workers, ..."""
        place = {
            "workers": self._driver.placement.layout.workers,
            "hosts": self._facts.hosts,
            "cores": self._facts.cores,
        }
        return {"strategy": self._facts.label, **parameters_of(self._driver.plan), **place}

    def follow(self: Any, callbacks: CallbackList) -> None:
        """Have callbacks told of this run, from its start to its end."""
        self._followers = callbacks.follow(self)
        self.when_over(self._followers.wake)
