"""Problem: what is wrong with a cluster, with whom, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

from scaleml.telemetry.formatting import listing

Severity = Literal["error", "warning", "note"]

_PLURAL: Final = {"has": "have", "does": "do", "is": "are", "listens": "listen", "reaches": "reach"}


@final
@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    severity : {"error", "warning", "note"}
        Whether runs fail by it or are refused, get slower or less exact, or it is only worth knowing.
    who : tuple of str
        Addresses of the workers that it is about; none for the cluster as a whole.
    what : str
        What is wrong, as it goes on after the name of one worker.
    remedy : str
        What to do.

    Examples
    --------
    >>> print(Problem("error", ("tcp://a:1", "tcp://b:1"), "cannot import scaleml", "install it there"))
    workers tcp://a:1 and tcp://b:1 cannot import scaleml: install it there
    """

    severity: Severity
    who: tuple[str, ...]
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.sentence}: {self.remedy}"

    @property
    def sentence(self) -> str:
        """What is wrong with whom."""
        if not self.who:
            return self.what
        verb, _, rest = self.what.partition(" ")
        return f"{named(self.who)} {_PLURAL.get(verb, verb) if len(self.who) > 1 else verb} {rest}"


def named(workers: Sequence[str], most: int = 8) -> str:
    """Return workers as a sentence names them.

    >>> named(["tcp://a:1"]), named([f"tcp://a:{n}" for n in range(4)], most=2)
    ('worker tcp://a:1', 'workers tcp://a:0, tcp://a:1 and 2 more')
    """
    shown = list(workers[:most])
    shown += [f"{len(workers) - most} more"] if len(workers) > most else []
    return f"worker{'s' * (len(workers) > 1)} {listing(shown)}"


def merged(problems: Sequence[Problem]) -> list[Problem]:
    """Return problems with those in one that differ only in whom they are about, worst first."""
    found: dict[tuple[Severity, str, str], list[str]] = {}
    for problem in problems:
        found.setdefault((problem.severity, problem.what, problem.remedy), []).extend(problem.who)
    order: tuple[Severity, ...] = ("error", "warning", "note")
    joined = [
        Problem(severity, tuple(dict.fromkeys(who)), what, remedy) for (severity, what, remedy), who in found.items()
    ]
    return sorted(joined, key=lambda problem: order.index(problem.severity))
