"""What a person may tell a run: pause, resume, stop, update. Stamped by rank 0, applied by all ranks at one boundary."""

from __future__ import annotations

import json
import queue
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib import import_module
from typing import Any, Final

from scaleml.faults import Fault
from scaleml.strategies import Strategy

_ROOMS: Final = ("strategies", "optim", "compression", "faults")
"""Where the classes are found that a description may name."""


@dataclass(frozen=True)
class Command:
    """One command.

    Parameters
    ----------
    number : int
        1, 2, ... in the order the run was told.
    verb : {"pause", "resume", "stop", "update", "inject", "switch"}
        What to do.
    settings : dict
        New settings for ``update``: ``learning_rate``, ``batch_size``, ``strategy``; the fault for ``inject``. With ``switch``
        the ranks hand over to others.
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


def is_ours(thing: Any) -> bool:
    """Whether an object's class is one of this package that a running rank may be told of by its name."""
    package, *rest = type(thing).__module__.split(".")
    return package == "scaleml" and rest[:1] != [] and rest[0] in _ROOMS and is_dataclass(thing)


def describe(thing: Any) -> dict[str, Any]:
    """Return a strategy or a fault, and the codecs and optimizers in it, as names of classes and their fields.

    Raises
    ------
    ValueError
        For an object of a class that is not this package's: ranks rebuild it by its name.

    Examples
    --------
    >>> from scaleml import Serial
    >>> describe(Serial(threads=2))
    {'room': 'strategies', 'name': 'Serial', 'fields': {'threads': 2}}
    """
    kind = type(thing)
    if not is_ours(thing):
        raise ValueError(f"{thing!r} is of no class of scaleml's own, which a running rank could find by its name")
    room = kind.__module__.split(".")[1]
    settings = {setting.name: getattr(thing, setting.name) for setting in fields(thing) if setting.init}
    return {
        "room": room,
        "name": kind.__name__,
        "fields": {name: describe(value) if is_dataclass(value) else value for name, value in settings.items()},
    }


def rebuild(description: dict[str, Any]) -> Any:
    """Make the object that `describe` described; nothing but dataclasses of this package."""
    assert description["room"] in _ROOMS
    home = import_module(f"scaleml.{description['room']}")
    assert description["name"] in home.__all__
    kind = getattr(home, description["name"])
    return kind(**{name: _value(value) for name, value in description["fields"].items()})


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return rebuild(value)
    return tuple(value) if isinstance(value, list) else value  # JSON knows no tuples


def strategy_from(description: dict[str, Any]) -> Strategy:
    """Rebuild a strategy."""
    made = rebuild(description)
    assert isinstance(made, Strategy)
    return made


def fault_from(description: dict[str, Any]) -> Fault:
    """Rebuild a fault."""
    made = rebuild(description)
    assert isinstance(made, Fault)
    return made


class CommandQueue:
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
