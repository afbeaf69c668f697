"""What can end a run, in words that name rank, step and remedy."""

from __future__ import annotations


class RunFailed(RuntimeError):
    """A run ended before its time; the message names rank, worker, step and cause."""


class NonFinite(ArithmeticError):
    """A loss or gradient is not finite; names rank, step and shard."""


class StartFailed(RuntimeError):
    """The ranks of a run could not be brought together; names the one that is missing."""
