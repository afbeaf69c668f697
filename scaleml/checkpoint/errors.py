"""What is wrong with a checkpoint, or with where it is to be."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint is torn, altered, foreign or of another run's data, or its folder cannot be used; says which file, and what to do."""
