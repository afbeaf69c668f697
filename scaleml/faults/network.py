"""What goes wrong between ranks. Each concerns what ``rank`` sends: to rank ``to``, or to everybody where that is None."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from scaleml.faults.base import Interval, Moment, check_link, check_real, check_whole


@dataclass(frozen=True)
class Latency(Interval):
    """A long way: everything that a rank sends arrives ``seconds`` later, in its order.

    Frames wait in a queue of the link, so the sender goes on computing, and other links are not held up. In the ledger it is
    ``comm`` time of whoever waits for them.

    Parameters
    ----------
    rank : int
        Who sends.
    seconds : float
        How much later; 0 lifts an earlier ``Latency``.
    step, until : int, int or None
        The sender's steps; None: to the end.
    to : int or None
        On the link to this rank only (a server's rank follows those that train); None: on all.

    Raises
    ------
    ValueError
        For a value that breaks its rule.

    Examples
    --------
    >>> from scaleml import faults
    >>> faults.Latency(rank=1, seconds=0.02, step=100)
    Latency(rank=1, seconds=0.02, step=100, until=None, to=None)
    """

    rank: int
    seconds: float
    step: int = 0
    until: int | None = None
    to: int | None = None

    def __post_init__(self) -> None:
        check_whole(rank=self.rank, step=self.step, until=self.until, to=self.to)
        check_link(self.rank, self.to)
        check_real("seconds", self.seconds, 0, "a finite number of seconds, 0 or more")
        if not isfinite(self.seconds):
            raise ValueError(f"seconds={self.seconds!r}: must be finite; DropLink cuts a link")


@dataclass(frozen=True)
class Bandwidth(Interval):
    """A slow network: a rank sends at most so many bytes a second, over all its links together or over one.

    Data that ranks of one host share in memory counts as if it were sent. Like ``Latency`` it delays frames in a queue, a copy of each,
    and shows as ``comm`` time of whoever waits for them.

    Parameters
    ----------
    rank : int
        Who sends.
    bytes_per_second : float
        The limit; ``math.inf`` lifts an earlier ``Bandwidth``.
    step, until : int, int or None
        The sender's steps; None: to the end.
    to : int or None
        The link to this rank has the limit for itself; None: all links of the rank share it.

    Raises
    ------
    ValueError
        For a value that breaks its rule.

    Examples
    --------
    >>> from scaleml import faults
    >>> faults.Bandwidth(rank=0, bytes_per_second=12.5e6)  # 100 Mbit/s
    Bandwidth(rank=0, bytes_per_second=12500000.0, step=0, until=None, to=None)
    """

    rank: int
    bytes_per_second: float
    step: int = 0
    until: int | None = None
    to: int | None = None

    def __post_init__(self) -> None:
        check_whole(rank=self.rank, step=self.step, until=self.until, to=self.to)
        check_link(self.rank, self.to)
        check_real("bytes_per_second", self.bytes_per_second, 0, "a positive number of bytes", above=True)


@dataclass(frozen=True)
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
        check_whole(rank=self.rank, step=self.step)
        _check_end(self.rank, self.to)


@dataclass(frozen=True)
class CorruptFrame(Moment):
    """One bit flips on the way: in the next frame that the rank sends to another one, from step ``step`` on.

    The receiver finds it by the payload's sum or the header's CRC-32 (on TLS links, by the record's authentication code) and
    ends the run with an error that names the rank. Within a host, where memory is copied to memory, payloads carry no sums; the
    one that is hit gets one.

    Parameters
    ----------
    rank, to, step : int
        Who sends to whom, and from which of the sender's steps.
    part : {"payload", "header"}
        Which part of the frame; one without payload is hit in its header.

    Raises
    ------
    ValueError
        For a value that breaks its rule.

    Examples
    --------
    >>> from scaleml import faults
    >>> faults.CorruptFrame(rank=1, to=0, step=5)
    CorruptFrame(rank=1, to=0, step=5, part='payload')
    """

    rank: int
    to: int
    step: int
    part: Literal["payload", "header"] = "payload"

    def __post_init__(self) -> None:
        check_whole(rank=self.rank, step=self.step)
        _check_end(self.rank, self.to)
        if self.part not in ("payload", "header"):
            raise ValueError(f"part={self.part!r}: must be 'payload' or 'header'")


def _check_end(rank: int, to: int) -> None:
    if to is None:
        raise ValueError("to=None: must be the rank at the other end of the link")
    check_whole(to=to)
    check_link(rank, to)
