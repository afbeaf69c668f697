"""State of a function of JAX: a pytree beside its parameters that steps change and no gradient does, such as Flax's ``batch_stats``."""

from __future__ import annotations

from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["State", "StateError", "by_path"]

Leaves = list[Any]


class StateError(ValueError):
    """A function does not return the state that it was given, changed: no fault of the rows."""


@final
class State:
    """The state that training begins with, and what a function must return of it.

    Parameters
    ----------
    tree : pytree of arrays
        Floats, whole numbers and truth values.
    dtype : numpy.dtype
        Of the parameters, and of the state's floats.

    Raises
    ------
    ValueError, TypeError
        For what is none, with the remedy.

    Examples
    --------
    >>> state = State({"norm": {"mean": np.zeros(2, "f4"), "steps": np.zeros(1, int)}}, np.dtype("f4"))
    >>> state.tree([one + 1 for one in state.leaves])
    {'norm': {'mean': array([1., 1.], dtype=float32), 'steps': array([1], dtype=int32)}}
    """

    def __init__(self, tree: Any, dtype: np.dtype[Any]) -> None:
        if callable(tree) and jax.tree_util.all_leaves([tree]):
            raise TypeError(
                "state is a function: must be a pytree of arrays, the same for all seeds, such as batch_stats as the module's init has them"
            )
        found = by_path(tree)
        self._names = tuple(found)
        self.leaves: Leaves = [_checked(name, one, dtype) for name, one in found.items()]
        self._tree = jax.tree.unflatten(jax.tree.structure(tree), self.leaves)

    def tree(self, leaves: Leaves) -> Any:
        """Return these arrays as the user's pytree."""
        return jax.tree.unflatten(jax.tree.structure(self._tree), leaves)

    def after(self, tree: Any, label: str) -> Leaves:
        """Return the arrays of what a function returned as the state after a step.

        Raises
        ------
        StateError
            They are others than those before, by names, shapes or kinds.
        """
        found = by_path(tree)
        if tuple(found) != self._names:
            raise StateError(
                f"{label} returns a state of {_listed(found)}, but was given one of {_listed(self._names)}: return all of "
                "it, as a step leaves it"
            )
        return [_alike(*pair, before, label) for pair, before in zip(found.items(), self.leaves, strict=True)]


def by_path(tree: Any) -> dict[str, Any]:
    """Return the leaves of a pytree by their paths.

    Examples
    --------
    >>> by_path({"norm": {"mean": 1, "var": (2, 3)}})
    {'norm/mean': 1, 'norm/var/0': 2, 'norm/var/1': 3}
    """
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): one for path, one in pairs}


def _checked(name: str, one: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    kind = getattr(one, "dtype", None)
    if kind is None or not hasattr(one, "shape"):
        raise TypeError(
            f"state has a {type(one).__name__} at {name!r}: all leaves must be arrays, such as jnp.zeros(())"
        )
    if jnp.issubdtype(kind, jax.dtypes.prng_key):
        raise ValueError(
            f"state has a key of random numbers at {name!r}: leave it out, and give apply a parameter called key, which is another one in "
            "each step and on each rank"
        )
    own = np.dtype(kind)
    if jnp.issubdtype(own, jnp.floating):
        if own.name not in ("float32", dtype.name):
            raise ValueError(
                f"state has {own} at {name!r}, but dtype={dtype.name!r}: make it {dtype.name}, and have apply compute in {own}"
            )
        return np.array(one, dtype)
    if own.kind not in "iub":
        raise ValueError(f"state has {own} at {name!r}: must be floats, whole numbers or truth values")
    wide = own.itemsize == 8 and dtype != np.float64  # JAX has 64 bits of whole numbers and floats, or of neither
    return np.array(one, f"{own.kind}4" if wide else own)


def _alike(name: str, one: Any, before: Any, label: str) -> Any:
    kind, was = np.dtype(jnp.result_type(one)), before.dtype
    floats = bool(jnp.issubdtype(kind, jnp.floating))
    if np.shape(one) != before.shape or floats != (was.kind == "f") or kind.kind == "c":
        raise StateError(
            f"{label} returns {name!r} of its state as {kind} of shape {np.shape(one)}, but was given {was} of shape {before.shape}: "
            "the state keeps shapes and kinds from step to step"
        )
    return jnp.asarray(one, was)


def _listed(names: Any) -> str:
    listed = [repr(name) for name in names]
    return ", ".join(listed[:4]) + (", ..." if len(listed) > 4 else "") if listed else "nothing"
