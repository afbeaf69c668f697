"""Network faults: latency, bandwidth, cut links, flipped bits. Each concerns what ``rank`` sends: to rank ``to``, or to everybody."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

from scaleml.checks import check_number, check_option
from scaleml.faults.base import Fault, Interval, Moment


class SlowLink(Interval):
    """What all that slows down a rank's links has in common.

    Frames wait in a queue of the link, so the sender goes on computing, and other links are not held up. In the ledger it is
    ``comm`` time of whoever waits for them.

    Attributes
    ----------
    rank : int
        Who sends.
    step, until : int, int or None
        The sender's steps; None: to the end.
    to : int or None
        The receiver (a server's rank follows those that train); None: all of them.
    """

    to: int | None

    @property
    @abstractmethod
    def lifts(self) -> bool:
        """Whether it slows nothing down, but ends an earlier fault of its kind."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.to is not None:
            self._make_integers("to")
        _check_ends(self, self.to)


@dataclass(frozen=True, repr=False)
class Latency(SlowLink):
    """A long way: everything that a rank sends arrives ``seconds`` later, in its order; see `SlowLink`.

    Parameters
    ----------
    seconds : float
        How much later; 0 lifts an earlier ``Latency``.

    Examples
    --------
    >>> from scaleml import faults
    >>> faults.Latency(rank=1, seconds=0.02, step=100)
    Latency(rank=1, seconds=0.02, step=100)
    """

    rank: int
    seconds: float
    step: int = 0
    until: int | None = None
    to: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "a finite number of seconds, 0 or more; DropLink cuts a link"
        check_number("seconds", self.seconds, 0, rule=rule)

    @property
    def lifts(self) -> bool:
        """Whether there is no delay."""
        return self.seconds == 0


@dataclass(frozen=True, repr=False)
class Bandwidth(SlowLink):
    """A slow network: a rank sends at most so many bytes a second, over all its links together or over one; see `SlowLink`.

    Data that ranks of one host share in memory counts as if it were sent. What waits is a copy of each frame.

    Parameters
    ----------
    bytes_per_second : float
        The limit; ``math.inf`` lifts an earlier ``Bandwidth``.
    to : int or None
        The link to this rank has the limit for itself; None: all links of the rank share it.

    Examples
    --------
    >>> from scaleml import faults
    >>> faults.Bandwidth(rank=0, bytes_per_second=12.5e6)  # 100 Mbit/s
    Bandwidth(rank=0, bytes_per_second=12500000.0)
    """

    rank: int
    bytes_per_second: float
    step: int = 0
    until: int | None = None
    to: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "a positive number of bytes; math.inf for no limit"
        check_number("bytes_per_second", self.bytes_per_second, 0, open_low=True, finite=False, rule=rule)

    @property
    def lifts(self) -> bool:
        """Whether there is no limit."""
        return math.isinf(self.bytes_per_second)


@dataclass(frozen=True, repr=False)
class DropLink(Moment):
    """A cut cable: the rank's link to another one closes, at step ``step``.

    Examples
    --------
    >>> from scaleml import faults
    >>> faults.DropLink(rank=1, to=0, step=5).active(5)
    True
    """

    rank: int
    to: int
    step: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._make_integers("to")
        _check_ends(self, self.to)


@dataclass(frozen=True, repr=False)
class CorruptFrame(Moment):
    """One bit flips on the way: in the next frame that the rank sends to another one, from step ``step`` on.

    The receiver finds it by the payload's sum or the header's CRC-32 (on TLS links, by the record's authentication code): no rank
    goes on with what came. With ``on_worker_lost="replace"`` their links are made again and the run recovers, else it fails with an
    error that names the rank. Within a host, where memory is copied to memory, payloads carry no sums; the
    one that is hit gets one.

    Parameters
    ----------
    rank, to, step : int
        Who sends to whom, and from which of the sender's steps.
    part : {"payload", "header"}
        Which part of the frame; one without payload is hit in its header.

    Examples
    --------
    >>> from scaleml import faults
    >>> faults.CorruptFrame(rank=1, to=0, step=5)
    CorruptFrame(rank=1, to=0, step=5)
    """

    rank: int
    to: int
    step: int
    part: Literal["payload", "header"] = "payload"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._make_integers("to")
        _check_ends(self, self.to)
        check_option("part", self.part, ("payload", "header"))


def _check_ends(fault: Fault, to: int | None) -> None:
    """Raise for a link of a rank to itself."""
    if fault.rank == to:
        raise ValueError(f"to={to!r}: must be another rank than rank={fault.rank!r}, whose link it is")
