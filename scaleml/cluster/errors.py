"""Errors that end a run or its start, in words that name rank, worker and remedy."""

from __future__ import annotations


class RunFailed(RuntimeError):
    """A run ended before its time; the message names rank, worker, step and cause."""


class StartFailed(RuntimeError):
    """The ranks of a run could not be brought together; names the one that is missing."""
