"""The first rank, as the client reaches it: commands go to it, also to the one that takes its place; it shows its parameters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar, final

from distributed import Client

from scaleml.arrays import Array
from scaleml.cluster import calls
from scaleml.cluster.endpoint import deliver_command, newest_params
from scaleml.cluster.launcher import Generation
from scaleml.runtime.commands import Command

Answer = TypeVar("Answer")


@final
class FirstRank:
    """Rank 0 of a run.

    Parameters
    ----------
    client : Client
        The cluster.
    run : str
        The run's id.
    """

    def __init__(self, client: Client, run: str) -> None:
        self._client = client
        self._run = run
        self._told: list[Command] = []
        self._listens = 0  # the generation whose first rank hears what comes now
        self._lock = threading.Lock()

    def tell(self, now: Generation, command: Command) -> bool:
        """Bring it a command; False if it is not there any more, and nobody will take its place."""
        with self._lock:
            self._told.append(command)
            if not now.plan.replaces_lost:
                try:
                    return self._ask(now, deliver_command, command)
                except TimeoutError:
                    raise
                except OSError:  # its worker is gone, which the run will say
                    return False
            if now.number == self._listens:
                with contextlib.suppress(Exception):  # if it is lost, whoever takes its place is told
                    self._ask(now, deliver_command, command)
            return True

    def told_since(self, known: int) -> tuple[Command, ...]:
        """Return what comes after the first ``known`` commands: whoever goes on from a recovery point has not heard it."""
        with self._lock:
            return tuple(self._told[known:])

    def listens(self, now: Generation, known: int | None = None) -> None:
        """Note that another first rank stands in its loop; bring it what comes after the ``known`` commands, if it has heard but these."""
        with self._lock:
            self._listens = now.number
            for command in self._told[known:] if known is not None else ():
                self._ask(now, deliver_command, command)

    def newest_params(self, now: Generation) -> Array | None:
        """Return the parameters that it kept last, if the run keeps them and it is still there."""
        return self._ask(now, newest_params)

    def _ask(self, now: Generation, function: Callable[..., Answer], *args: object) -> Answer:
        address = now.placement.addresses[0]
        key = self._run, now.number, 0
        return calls.on_workers(self._client, calls.CALL_TIMEOUT, function, key, *args, workers=[address])[address]
