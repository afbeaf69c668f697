"""Programs of JAX: a function and its loss, compiled once for each number of rows, of one flat vector of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np

from scaleml.arrays import Array
from scaleml.frameworks.inputs import Fields, described, fields_of, kind_of
from scaleml.frameworks.jax_function import Function, Leaves
from scaleml.frameworks.jax_losses import JaxLoss
from scaleml.frameworks.jax_state import StateError
from scaleml.frameworks.layout import Layout
from scaleml.models.base import Signature

__all__ = ["Forward", "Program", "whole_numbers"]


@final
class Forward:
    """Calls a function on rows of X.

    Parameters
    ----------
    function : Function
    signature : Signature
        Of the data.
    dtype : numpy.dtype
        Of the parameters.

    Raises
    ------
    ValueError
        X is what no function takes.
    """

    def __init__(self, function: Function, signature: Signature, dtype: np.dtype[Any]) -> None:
        self.function, self.dtype = function, dtype
        self._fields: Fields = fields_of(signature.row)
        row = signature.row
        for part in [] if row is None else [row[name] for name in self._fields.names] or [row]:
            kind_of(part.base)

    def parts(self, x: Array) -> tuple[Array, ...]:
        """Return rows of X (n, ...) as arrays that JAX takes: one, or one for each input.

        Raises
        ------
        ValueError
            A whole number is larger than JAX's.
        """
        return tuple(
            _within(part, self.dtype) for part in ([x[name] for name in self._fields.names] if x.dtype.names else [x])
        )

    def __call__(self, leaves: Leaves, state: Leaves, parts: tuple[Any, ...], key: Any) -> tuple[Any, Leaves]:
        """Return the outputs of rows, floats in the parameters' dtype, and the state after them; see `Function`.

        Raises
        ------
        ValueError
            The function cannot take them; says what it was given.
        """
        given = [self._input(part) for part in parts]
        fields = self._fields
        x: Any = given[0]
        if fields.names:
            x = dict(zip(fields.names, given, strict=True)) if fields.by_name else tuple(given)
        try:
            output, state = self.function(leaves, state, x, key)
        except StateError:
            raise
        except Exception as error:
            raise ValueError(_refusal(self.function, given, error)) from error
        return jax.tree.map(self._in_dtype, output), state

    def _input(self, part: Any) -> Any:
        kind = kind_of(np.dtype(part.dtype))
        return jnp.asarray(
            part, self.dtype if kind == "float" else whole_numbers(self.dtype) if kind == "integer" else bool
        )

    def _in_dtype(self, one: Any) -> Any:
        return jnp.asarray(one, self.dtype) if jnp.issubdtype(jnp.result_type(one), jnp.floating) else one


@final
@dataclass(frozen=True, eq=False)
class Program:
    """What JAX computes for a network.

    Each of its methods, compiled, is given the vector (P,), the state, rows and, where it says so, their targets and weights.

    Parameters
    ----------
    forward : Forward
    loss : JaxLoss
    layout : Layout
        Of the vector.
    output : tuple of int or None
        The shape of a row's output; None where outputs are no single array.
    targets : numpy.dtype
        In which the loss is given targets.
    """

    forward: Forward
    loss: JaxLoss
    layout: Layout
    output: tuple[int, ...] | None
    targets: np.dtype[Any]

    def __post_init__(self) -> None:
        for name in ("gradient", "evaluated", "outputs"):
            object.__setattr__(self, name, jax.jit(getattr(self, name)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Program, (self.forward, self.loss, self.layout, self.output, self.targets)

    def gradient(
        self, w: Any, state: Leaves, parts: tuple[Any, ...], y: Any, weights: Any, draw: Any
    ) -> tuple[Leaves, Any, Any, Leaves]:
        """Return the gradient of the summed loss by arrays, that loss, its mass, and the state after it.

        `draw` (4,) has the numbers that the key is made of: seed, step, rank, and which gradient of the step it is.
        """

        def total(leaves: Leaves) -> tuple[Any, tuple[Any, Leaves]]:
            loss, mass, after = self._total(leaves, state, parts, y, weights, draw)
            return loss, (mass, after)

        (loss, (mass, after)), grads = jax.value_and_grad(total, has_aux=True)(self.leaves(w))
        return grads, loss, mass, after

    def evaluated(self, w: Any, state: Leaves, parts: tuple[Any, ...], y: Any, weights: Any) -> tuple[Any, Any, Any]:
        """Return the outputs in evaluation mode, the summed loss, and its mass."""
        output = self.outputs(w, state, parts)
        return output, *self.loss.total(output, jnp.asarray(y, self.targets), weights)

    def outputs(self, w: Any, state: Leaves, parts: tuple[Any, ...]) -> Any:
        """Return the outputs in evaluation mode."""
        return self._called(self.leaves(w), state, parts, None)[0]

    def leaves(self, w: Any) -> Leaves:
        """Return the arrays that lie in the vector."""
        pairs = zip(self.layout.slices, self.layout.shapes, strict=True)
        return [w[part].reshape(shape) for part, shape in pairs]

    def _total(
        self, leaves: Leaves, state: Leaves, parts: tuple[Any, ...], y: Any, weights: Any, draw: Any
    ) -> tuple[Any, Any, Leaves]:
        key = jax.random.key(draw[0])
        for number in (draw[1], draw[2], draw[3]):
            key = jax.random.fold_in(key, number)
        output, after = self._called(leaves, state, parts, key)
        return *self.loss.total(output, jnp.asarray(y, self.targets), weights), after

    def _called(self, leaves: Leaves, state: Leaves, parts: tuple[Any, ...], key: Any) -> tuple[Any, Leaves]:
        output, after = self.forward(leaves, state, parts, key)
        rows = len(parts[0])
        if self.output is not None and tuple(output.shape) != (rows, *self.output):
            raise ValueError(
                f"{self.forward.function.label} returns shape {tuple(output.shape)} for {rows} rows, but (rows, {self.output}) before: "
                "rows of one shape must give outputs of one shape"
            )
        return output, after


def whole_numbers(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return what whole numbers are in JAX beside floats of a dtype: it has 64 bits of both or of neither."""
    return np.dtype("int64" if dtype == np.float64 else "int32")


def _within(part: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array without whole numbers that JAX would cut down in silence."""
    if part.dtype.kind not in "iu" or whole_numbers(dtype).itemsize == 8:
        return part.astype(np.int64, copy=False) if part.dtype == np.uint64 else part
    bounds = np.iinfo(np.int32)
    if np.can_cast(part.dtype, np.int32):
        return part
    if part.size and (part.max() > bounds.max or part.min() < bounds.min):
        raise ValueError(
            f"X has whole numbers up to {part.max()}, and JAX's have 32 bits where it computes in float32: number them from 0, or use "
            "dtype='float64', with which they have 64"
        )
    return part.astype(np.int32)


def _refusal(function: Function, given: list[Any], error: Exception) -> str:
    shapes = ", ".join(f"{tuple(one.shape)} {one.dtype}" for one in given)
    row = "; ".join(described(np.empty((0, *one.shape[1:]), one.dtype)) for one in given)
    first = f"{function.names[0]} of shape {function.shapes[0]}"
    said = str(error).split("\n", 1)[0]
    hint = ""
    if isinstance(error, jax.errors.JAXTypeError):
        hint = " It is compiled by jax.jit: compute with jax.numpy, and branch with jnp.where or jax.lax.cond."
    return (
        f"{function.label} does not take these rows: given {shapes}, it raised {type(error).__name__}: {said}. A row of X has {row}; the "
        f"first parameters are {first}. Give X the shape and dtype that it wants, or convert it in the function.{hint}"
    )
