"""Where a model's arrays may lie, and what one of another framework needs on a GPU: asked for with ``isinstance``, never assumed."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from scaleml.arrays import Array

__all__ = ["Foreign", "OnDevices", "Skipping", "devices_of"]


@runtime_checkable
class OnDevices(Protocol):
    """A model that says where its arrays may lie: one that does not has NumPy's alone.

    Attributes
    ----------
    devices : tuple of str
        Of ``"cpu"`` and ``"cuda"``; that of the process that asks, where that decides.
    """

    @property
    def devices(self) -> tuple[str, ...]: ...


@runtime_checkable
class Foreign(Protocol):
    """A model of another framework, which has to find a GPU's arrays by itself, and takes memory of its own there."""

    def why_no_gpu(self) -> str:
        """Return why it cannot use one, wherever that is, in words and with the remedy; "" where nothing is known.

        It may have to be tried: ask where it matters.
        """

    @property
    def framework(self) -> str:
        """Name of a module of ours that is imported where there is a GPU.

        Its ``what_is_missing()`` returns what the framework lacks there, and the remedy: both "" where nothing.
        """

    def release(self) -> None:
        """Leave a GPU, with what it holds: a rank ends."""


@runtime_checkable
class Skipping(Protocol):
    """A model whose targets may have a row weigh nothing, as the padding of a text does, though it has no weight of its own."""

    @property
    def may_skip_rows(self) -> bool:
        """Whether they may."""

    def counts_all(self, y: Array) -> bool:
        """Whether each row of `y` (n, ...), of the processor's memory, weighs something."""


def devices_of(model: object) -> tuple[str, ...]:
    """Return where the model's arrays may lie, of ``"cpu"`` and ``"cuda"``."""
    if isinstance(model, Foreign):
        return ("cpu",) if model.why_no_gpu() else ("cpu", "cuda")
    return model.devices if isinstance(model, OnDevices) else ("cpu",)
