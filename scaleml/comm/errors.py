"""What can go wrong between ranks: every error names who reports it, about whom, and at which step."""

from __future__ import annotations

from collections.abc import Sequence


class CommError(RuntimeError):
    """A rank could not talk to another one.

    Parameters
    ----------
    message : str
        What happened, with the peer, the step and what was waited for.
    rank, peer, step : int
        Who reports, about which rank (-1: nobody in particular), at which of the reporter's steps.
    """

    def __init__(self, message: str, *, rank: int = -1, peer: int = -1, step: int = -1) -> None:
        super().__init__(message)  # only the message is in args: unpickling restores the rest from __dict__
        self.rank = rank
        self.peer = peer
        self.step = step


class PeerLost(CommError):
    """The peer's end of the link is closed: its process died, or it left."""


class PeerTimeout(CommError):
    """Nothing came from a peer for the whole timeout, and nobody asked to go on waiting."""


class CorruptFrame(CommError):
    """A frame was altered on its way, or belongs to another run or generation."""


class Mismatch(CommError, ValueError):
    """Ranks called different collectives, or the same one with different lengths or dtypes."""


class Aborted(CommError):
    """``abort`` was called on this rank's group while, or before, it was talking."""


class Deadlock(CommError):
    """In simulated time: every rank waits, and nothing is under way."""


class HandshakeError(CommError):
    """The links of a group could not be made.

    Attributes
    ----------
    missing : tuple of int
        The ranks to which no link stands.
    """

    def __init__(self, message: str, *, rank: int = -1, peer: int = -1, step: int = -1, missing: tuple[int, ...] = ()):
        super().__init__(message, rank=rank, peer=peer, step=step)
        self.missing = missing


def root_cause(errors: Sequence[BaseException]) -> BaseException:
    """Return the first of some ranks' errors, in the order in which they came, that is not the echo of another rank's end."""
    return next((error for error in errors if not isinstance(error, Aborted | PeerLost)), errors[0])
