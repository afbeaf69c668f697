"""Parameter names of networks, as PyTorch's `Module.named_parameters` would give them."""

from __future__ import annotations

from collections.abc import Sequence

from scaleml.models.blocks import Block

__all__ = ["names_of"]


def names_of(blocks: Sequence[Block]) -> tuple[tuple[str, slice], ...]:
    """Return the names of the blocks' parameters, and their parts of the vector.

    ``weight`` and ``bias`` of a linear model; of a perceptron ``hidden.0.weight``, ``hidden.0.bias``, ..., ``output.weight``,
    ``output.bias``.

    Examples
    --------
    >>> from scaleml.models import MLP, Signature
    >>> names_of(MLP((3,)).build(Signature(2)).blocks)[2:]
    (('output.weight', slice(9, 12, None)), ('output.bias', slice(12, 13, None)))
    """
    named: list[tuple[str, slice]] = []
    for place, block in enumerate(blocks):
        layer = "" if len(blocks) == 1 else "output." if place == len(blocks) - 1 else f"hidden.{place}."
        cut = block.start + block.n_weights
        named.append((f"{layer}weight", slice(block.start, cut)))
        if cut < block.stop:
            named.append((f"{layer}bias", slice(cut, block.stop)))
    return tuple(named)
