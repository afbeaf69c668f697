"""What a person may tell a run: pause, resume, stop, update. Stamped by rank 0, applied by all ranks at one boundary."""

from __future__ import annotations

import json
import queue
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from scaleml import optim, strategies
from scaleml.faults import Crash, Fault, Kill, Slow

_FAULTS: dict[str, type[Fault]] = {"Slow": Slow, "Crash": Crash, "Kill": Kill}


@dataclass(frozen=True)
class Command:
    """One command.

    Parameters
    ----------
    number : int
        1, 2, ... in the order the run was told.
    verb : {"pause", "resume", "stop", "update", "inject"}
        What to do.
    settings : dict
        New settings for ``update``: ``learning_rate``, ``batch_size``, ``strategy``; the fault for ``inject``.
    after : int
        The step after which all ranks apply it, stamped by rank 0.
    """

    number: int
    verb: str
    settings: dict[str, Any] = field(default_factory=dict)
    after: int = -1

    def stamped(self, after: int) -> Command:
        """Return the command with the step after which it takes effect."""
        return replace(self, after=after)

    def encode(self) -> bytes:
        """Return the command as JSON: nothing that a rank receives from a rank is ever unpickled."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Command:
        """Read a command back."""
        return cls(**json.loads(bytes(data)))


def describe(thing: Any) -> dict[str, Any]:
    """Return a strategy, an optimizer or a fault as its class's name and its fields, which may hold more of them."""
    settings = {setting.name: getattr(thing, setting.name) for setting in fields(thing)}
    return {
        "name": type(thing).__name__,
        **{name: describe(value) if is_dataclass(value) else value for name, value in settings.items()},
    }


def strategy_from(description: dict[str, Any]) -> strategies.Strategy:
    """Rebuild a strategy of this package from its name and fields."""
    made = _rebuilt(description, strategies)
    assert isinstance(made, strategies.Strategy)
    return made


def _rebuilt(description: dict[str, Any], room: Any) -> Any:
    settings = {
        name: _rebuilt(value, optim) if isinstance(value, dict) else value for name, value in description.items()
    }
    return getattr(room, settings.pop("name"))(**settings)


def fault_from(description: dict[str, Any]) -> Fault:
    """Rebuild a fault from its name and fields."""
    settings = dict(description)
    return _FAULTS[settings.pop("name")](**settings)


def check_faults(faults: list[Fault], workers: int, own_cluster: bool) -> None:
    """Raise for a fault that cannot be injected."""
    for fault in faults:
        if not isinstance(fault, Fault):
            raise TypeError(f"{fault!r} is no fault: use one of scaleml.faults, such as Slow(rank=1, factor=4)")
        if fault.rank >= workers:
            raise ValueError(f"{fault!r}: there are {workers} training ranks, 0 to {workers - 1}")
        if isinstance(fault, Kill) and not own_cluster:
            raise ValueError(
                f"{fault!r}: only workers that scaleml started may be killed; pass client=None to use its own cluster"
            )


class Mailbox:
    """Where commands for rank 0 arrive, from another thread; looking whether there is one costs one attribute."""

    def __init__(self) -> None:
        self.pending = False
        self._queue: queue.SimpleQueue[Command | None] = queue.SimpleQueue()

    def put(self, command: Command) -> None:
        """Leave a command."""
        self._queue.put(command)
        self.pending = True

    def wake(self) -> None:
        """Wake whoever waits: the run is over."""
        self._queue.put(None)

    def take(self) -> Command | None:
        """Return the next command at once, or None."""
        try:
            command = self._queue.get_nowait()
        except queue.Empty:
            command = None
        self.pending = not self._queue.empty()
        return command

    def wait(self) -> Command | None:
        """Wait for the next command; None when woken without one."""
        command = self._queue.get()
        self.pending = not self._queue.empty()
        return command
