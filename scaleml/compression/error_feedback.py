"""Error feedback: what a codec has not sent yet, its residual, kept in the rank's state until the next time.

References
----------
Karimireddy et al., Error feedback fixes SignSGD and other gradient compression schemes, ICML 2019, arXiv:1901.09847.
"""

from __future__ import annotations

from typing import Final

from scaleml.arrays import Array, namespace

__all__ = ["PREFIX", "forget", "kept", "residual"]

PREFIX: Final = "compression."
"""How the names of private arrays in a strategy's state begin: no other rank has the same, and none may be averaged."""


def residual(state: dict[str, Array], name: str, like: Array) -> Array:
    """Return the residual of this name from `state`: zeros at first, or where the vector has another length."""
    name = PREFIX + name
    found = state.get(name)
    if found is None or found.shape != like.shape or found.dtype != like.dtype:
        found = state[name] = namespace(like).zeros_like(like)
    return found


def kept(state: dict[str, Array], before: object, after: object) -> dict[str, Array]:
    """Return what of `state` goes on where one codec follows another, None for none: residuals; all of it if they are the same."""
    if before is None or after is None:
        return {}
    common = (PREFIX + "residual", PREFIX + "weight")
    return {name: state[name] for name in state if name.startswith(PREFIX if before == after else common)}


def forget(state: dict[str, Array]) -> None:
    """Remove from `state` all that codecs keep there."""
    for name in [name for name in state if name.startswith(PREFIX)]:
        del state[name]
