"""Checkpoints: what a run writes to a folder or an object store while it trains, for ``scaleml.resume`` to go on from."""

from scaleml.checkpoint.errors import CheckpointError
from scaleml.checkpoint.settings import Checkpoint

__all__ = ["Checkpoint", "CheckpointError"]
