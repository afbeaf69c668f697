"""Functions of JAX that a network trains: of parameters, rows and a key. Plain ones, as users write them with a pytree of parameters."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, final

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl

from scaleml.frameworks.jax_state import Leaves, State, StateError, by_path
from scaleml.frameworks.travel import why_it_stays

__all__ = ["Function", "Leaves", "PureFunction", "check_apply", "check_params", "precision"]

_KEYS: Final = ("key", "rng")
"""What a parameter of ``apply`` is called that takes a key."""
_MODES: Final = ("train", "training", "is_training")
"""What one is called that is True in training and False in evaluation."""

_EQUINOX: Final = "params, static = eqx.partition(module, eqx.is_inexact_array)"


class Function(Protocol):
    """What a JAX network computes with: pure, so that JAX can compile and differentiate it.

    Attributes
    ----------
    label : str
        What errors call it.
    names, shapes : tuples
        Of the arrays that are trained.
    """

    label: str
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def start(self, seed: int) -> Leaves:
        """Return the arrays that a run of this seed begins with."""

    def state(self) -> Leaves:
        """Return the arrays that a forward pass changes and no gradient does, as they are at the start."""

    def __call__(self, leaves: Leaves, state: Leaves, x: Any, key: jax.Array | None) -> tuple[Any, Leaves]:
        """Return the outputs of rows, and the state after them; a key is for training, None for evaluation."""

    def module(self, leaves: Leaves, state: Leaves) -> Any:
        """Return what the user gets of trained arrays."""


def precision(dtype: np.dtype[Any]) -> AbstractContextManager[Any]:
    """Return a context in which this thread's JAX computes in a dtype: JAX has float64 only where it is switched on."""
    _start()
    switch: Any = jax.enable_x64
    return switch(dtype == np.float64)


def _start() -> None:
    """Have JAX, before it starts, take no more cores than this rank has, and no more of a GPU than it needs: there may be others."""
    if "PJRT_NPROC" not in os.environ:
        pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
        os.environ["PJRT_NPROC"] = str(min(pools, default=os.cpu_count() or 1))
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@final
class PureFunction:
    """A user's ``apply(params, x)`` or ``apply(params, state, x)``, and its pytrees of parameters and state.

    Parameters
    ----------
    apply : callable
        May have parameters that take a key and whether it is in training.
    params : pytree of arrays, or callable
        Callable: makes one of a key.
    dtype : numpy.dtype
    state : pytree of arrays or None
        None for a function that has none, and returns outputs alone.

    Raises
    ------
    ValueError, TypeError
        For what is no pytree of arrays of numbers, with the remedy.
    """

    def __init__(self, apply: Callable[..., Any], params: Any, dtype: np.dtype[Any], state: Any = None) -> None:
        self.label = getattr(apply, "__name__", type(apply).__name__)
        self._apply, self._dtype = apply, dtype
        self._key, self._mode = parameter_of(apply, _KEYS), parameter_of(apply, _MODES)
        self._state = None if state is None else State(state, dtype)
        self._make: Callable[[Any], Any] | None = params if is_factory(params) else None
        tree = params if self._make is None else _shapes_of(self._make, dtype)
        found = named_leaves(tree)
        self.names = tuple(found)
        self.shapes = tuple(tuple(np.shape(one)) for one in found.values())
        if self._make is None:
            tree = jax.tree.map(lambda one: np.array(one, dtype), tree)
        self._tree = tree

    def start(self, seed: int) -> Leaves:
        """Return the arrays that a run of this seed begins with: the user's, or what is made of the seed's key."""
        tree = self._tree
        if self._make is not None:
            with precision(self._dtype):
                tree = self._make(jax.random.key(seed))
        found = named_leaves(tree)
        if tuple(found) != self.names or tuple(np.shape(one) for one in found.values()) != self.shapes:
            raise ValueError(
                "the function that makes the parameters makes others in each call: names and shapes must be the same for all keys"
            )
        return [np.asarray(one, self._dtype) for one in found.values()]

    def state(self) -> Leaves:
        """Return the user's state, as training begins."""
        return [] if self._state is None else list(self._state.leaves)

    def __call__(self, leaves: Leaves, state: Leaves, x: Any, key: jax.Array | None) -> tuple[Any, Leaves]:
        """Return the outputs of rows, and the state after them: in evaluation as it was, whatever the function returns of it."""
        params = jax.tree.unflatten(jax.tree.structure(self._tree), leaves)
        named: dict[str, Any] = {self._key: key} if self._key else {}
        if self._mode:
            named[self._mode] = key is not None
        if self._state is None:
            return self._apply(params, x, **named), state
        found = self._apply(params, self._state.tree(state), x, **named)
        if not isinstance(found, tuple) or len(found) != 2:
            raise StateError(
                f"{self.label} returns a {type(found).__name__}, but with state it must return two: the outputs, and the state after them"
            )
        return found[0], state if key is None else self._state.after(found[1], self.label)

    def module(self, leaves: Leaves, state: Leaves) -> Any:
        """Return the pytree of the parameters, as arrays of JAX; where there is a state, that and the pytree of the state."""
        with precision(self._dtype):
            own, others = ([jnp.array(one) for one in part] for part in (leaves, state))
        params = jax.tree.unflatten(jax.tree.structure(self._tree), own)
        return params if self._state is None else (params, self._state.tree(others))

    def check_travels(self, **parts: object) -> None:
        """Raise ValueError for what cannot be sent to workers."""
        for name, part in {
            "apply": self._apply,
            "params": self._make or self._tree,
            "state": self._state,
            **parts,
        }.items():
            error = why_it_stays(part)
            if error is not None:
                raise ValueError(
                    f"{name} cannot be sent to workers ({type(error).__name__}: {error}): let it close over arrays and plain values alone, "
                    "and make what else it needs where it is called"
                )


def is_factory(params: object) -> bool:
    """Return whether it is a function that makes parameters: modules of Equinox can be called, too, but are pytrees."""
    return callable(params) and jax.tree_util.all_leaves([params])


def parameter_of(apply: Callable[..., Any], names: tuple[str, ...]) -> str | None:
    """Return which of these names a parameter of a function has; None if none has.

    Examples
    --------
    >>> parameter_of(lambda params, x, key=None: x, ("key", "rng")), parameter_of(lambda params, x: x, ("key", "rng"))
    ('key', None)
    """
    try:
        parameters = inspect.signature(apply).parameters
    except (TypeError, ValueError):  # some that are written in C do not say
        return None
    return next((name for name in parameters if name in names), None)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the arrays of a pytree by their paths.

    Raises
    ------
    ValueError, TypeError
        There are none, or something else is among them.

    Examples
    --------
    >>> list(named_leaves({"dense": {"kernel": np.ones((2, 3)), "bias": np.zeros(3)}, "scale": np.ones(1)}))
    ['dense/bias', 'dense/kernel', 'scale']
    """
    if isinstance(tree, Mapping) and {"params", "batch_stats"} <= tree.keys():
        raise ValueError(
            "params has Flax's 'batch_stats' beside its 'params', and all leaves are trained: pass variables['params'], and "
            "state=variables['batch_stats'], with which apply(params, state, x, train) returns the outputs and the state after them"
        )
    found: dict[str, Any] = {}
    for path, one in by_path(tree).items():
        name = path or "params"
        kind = getattr(one, "dtype", None)
        if kind is None or not hasattr(one, "shape"):
            raise TypeError(
                f"params has a {type(one).__name__} at {name!r}: all leaves are trained, so all must be arrays of floats; take others out, "
                f"as functions and settings: of Equinox's modules by {_EQUINOX}, with apply = lambda params, x: "
                "jax.vmap(eqx.combine(params, static))(x)"
            )
        if jnp.issubdtype(kind, jax.dtypes.prng_key) or not jnp.issubdtype(kind, jnp.floating):
            raise ValueError(
                f"params has an array of {kind} at {name!r}: all leaves are trained, so all must be floats; let apply close over what is "
                "not trained, or give it as state= if steps change it"
            )
        found[name] = one
    if not sum(np.size(one) if isinstance(one, np.ndarray) else int(np.prod(one.shape)) for one in found.values()):
        raise ValueError("params has no arrays, so there is nothing to train")
    return found


def check_apply(apply: object) -> None:
    """Raise TypeError unless it is a function of parameters and rows, with the remedy for what frameworks have instead."""
    kind = type(apply).__name__
    if isinstance(apply, type):
        raise TypeError(f"apply is the class {apply.__name__}: must be a function of (params, x)")
    own = getattr(apply, "apply", None)
    if callable(own):
        flax = (
            "of Flax as {'params': ...}"
            if hasattr(apply, "init") and hasattr(apply, "setup")
            else "as its init makes them"
        )
        keyed = ""
        if kind == "TransformedWithState":
            keyed = (
                " A Haiku function takes state and key: lambda params, state, x, key=None: transformed.apply(params, state, key, x), with "
                "state=state."
            )
        elif hasattr(apply, "_fields"):
            keyed = (
                " A Haiku function takes its key second: lambda params, x, key=None: transformed.apply(params, key, x)."
            )
        raise TypeError(
            f"apply is a {kind}, which has one: pass its apply, JaxModel(module.apply, params, ...), and the parameters {flax}.{keyed}"
        )
    if not callable(apply):
        raise TypeError(f"apply is a {kind}: must be a function of (params, x), or of (params, x, key)")
    if not jax.tree_util.all_leaves([apply]):
        split = f"{_EQUINOX}, and apply = lambda params, x: jax.vmap(eqx.combine(params, static))(x)"
        if any(base.__module__.startswith("flax") for base in type(apply).__mro__):
            split = (
                "graph, params, rest = nnx.split(module, nnx.Param, ...), and apply = lambda params, x: nnx.merge(graph, params, rest, "
                "copy=True)(x)"
            )
        raise TypeError(f"apply is a {kind}, which holds its parameters itself: {split}")


def check_params(params: Any, dtype: np.dtype[Any]) -> None:
    """Raise ValueError or TypeError unless it is a pytree of arrays in a dtype, or a function that makes one."""
    if is_factory(params):
        return
    for name, one in named_leaves(params).items():
        own = str(one.dtype)
        if own in ("bfloat16", "float16"):
            raise ValueError(
                f"{name!r} is {own}, in which small updates are lost: keep parameters in float32, and have apply compute in {own}"
            )
        if own not in ("float32", dtype.name):
            raise ValueError(
                f"{name!r} is {own}, but dtype={dtype.name!r}: pass dtype={own!r}, or make it {dtype.name}"
            )


def _shapes_of(make: Callable[[Any], Any], dtype: np.dtype[Any]) -> Any:
    """Return what a function makes of a key, shapes in place of arrays where JAX can tell without computing."""
    name = getattr(make, "__name__", "params")
    with precision(dtype):
        try:
            try:
                tree = jax.eval_shape(make, jax.eval_shape(jax.random.key, 0))
            except jax.errors.JAXTypeError:  # it computes with NumPy
                tree = make(jax.random.key(0))
        except Exception as error:
            raise TypeError(
                f"{name} cannot make parameters of a key ({type(error).__name__}: {error}): params must be a pytree of arrays, or a "
                "function of one key that makes one"
            ) from error
    named_leaves(tree)
    return jax.tree.map(lambda one: jax.ShapeDtypeStruct(np.shape(one), dtype), tree)
