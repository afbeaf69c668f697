"""Trial: a function of JAX and its loss are traced for a few made-up rows before anything is placed, so that mistakes show at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scaleml.arrays import Array
from scaleml.frameworks.ends import hint_of_squash, may_be_pixels
from scaleml.frameworks.inputs import trial_rows
from scaleml.frameworks.jax_ends import squash_of, takes_as_it_is
from scaleml.frameworks.jax_function import Leaves
from scaleml.frameworks.jax_losses import JaxLoss
from scaleml.frameworks.jax_program import Forward, Program, whole_numbers
from scaleml.frameworks.layout import Layout
from scaleml.frameworks.loss import Reduction, reduction_of
from scaleml.frameworks.objective import Objective
from scaleml.frameworks.scorer import Scorer

__all__ = ["tried"]

_ROWS = 5


class _Found(NamedTuple):
    program: Program
    scorer: Scorer
    takes_as_it_is: bool


def tried(forward: Forward, loss: JaxLoss, objective: Objective, layout: Layout) -> _Found:
    """Return the program of a function and its loss, and what its outputs say. Nothing is computed but for a loss of the user's.

    Raises
    ------
    ValueError
        The function cannot take rows of X, its outputs do not fit the targets, or the loss returns what no gradient can be made of.
    """
    function, dtype = forward.function, forward.dtype
    x, y = forward.parts(trial_rows(objective.signature, _ROWS)), objective.trial_targets(_ROWS)
    leaves = [jax.ShapeDtypeStruct(shape, dtype) for shape in layout.shapes]
    given = leaves, function.state(), x
    traced, (output, _) = jax.make_jaxpr(lambda own, state, rows: forward(own, state, rows, None), return_shape=True)(
        *given
    )
    shape = tuple(output.shape) if isinstance(output, jax.ShapeDtypeStruct) else None
    if shape is None and loss.targets != "any":
        raise ValueError(
            f"{function.label} returns a {type(output).__name__}, but {loss.name} takes one array: have it return that alone, or pass a "
            "function as loss that takes what is needed; what it returns beside the outputs for the next step is state="
        )
    if shape is not None and shape[:1] != (_ROWS,):
        raise ValueError(
            f"{function.label} returns shape {shape} for {_ROWS} rows: its first axis must be that of the rows; a function of one row "
            "becomes one of many by jax.vmap(apply, in_axes=(None, 0))"
        )
    if loss.targets in ("labels", "numbers") and shape is not None:
        objective.check_alike(shape)
    kind = whole_numbers(dtype) if objective.kind_of_targets(shape) == "integer" else dtype
    if loss.targets == "any":
        loss = replace(loss, reduction=_reduction(forward, loss, output, x, y.astype(kind)))
    scorer = objective.scorer(shape, loss.ignored)
    loss = replace(loss, axis=scorer.axis)
    program = Program(forward, loss, layout, None if shape is None else shape[1:], kind)
    w, draw = jax.ShapeDtypeStruct((layout.size,), dtype), np.zeros(4, np.uint32)
    _, value, _, _ = jax.eval_shape(program.gradient, w, function.state(), x, y, None, draw)
    assert value.shape == ()
    hint_of_squash(function.label, loss.name, loss.link, squash_of(traced.jaxpr) if shape is not None else None)
    inputs = traced.jaxpr.invars[-len(x) :]
    pixels = [one for one, part in zip(inputs, x, strict=True) if part.dtype == np.uint8 or len(x) == 1]
    as_it_is = may_be_pixels(objective.signature) and takes_as_it_is(traced.jaxpr, pixels)
    return _Found(program, scorer, as_it_is)


def _reduction(forward: Forward, loss: JaxLoss, output: Any, x: tuple[Array, ...], y: Array) -> Reduction:
    """Return what a function of the user's gives: one number a row, or else found by calling it on all rows, and on two parts."""
    value = _called(loss, lambda own, target: jax.eval_shape(loss.function, own, target), output, y)
    shape = getattr(value, "shape", None)
    if shape is None or not jnp.issubdtype(value.dtype, jnp.floating):
        kind = type(value).__name__ if shape is None else f"array of {value.dtype}"
        raise ValueError(f"{loss.name} returns a {kind}: return an array of floats, for its gradient")
    single = isinstance(output, jax.ShapeDtypeStruct)
    if shape:
        if shape == (_ROWS,):
            return "rows"
        trap = ""
        if shape == (_ROWS, _ROWS):
            trap = "; were outputs of shape (rows, 1) and targets of shape (rows,) broadcast? Use outputs[:, 0]"
        raise ValueError(
            f"{loss.name} returns shape {tuple(shape)} for {_ROWS} rows: return one number, the mean over the rows, or one number a "
            f"row{trap}"
        )
    function = forward.function
    outputs = _outputs(forward, function.start(0), x)
    found = reduction_of(lambda part: _value(loss, outputs, y, part), _ROWS)
    if found is not None:
        return found
    if single and output.shape[1:] == (1,) and y.ndim == 1:
        raise ValueError(
            f"{loss.name} is no mean over the rows: outputs have shape (rows, 1) and targets (rows,), which broadcast to (rows, rows); "
            "use outputs[:, 0]"
        )
    return "mean"


def _outputs(forward: Forward, leaves: Leaves, x: tuple[Array, ...]) -> Any:
    state = forward.function.state()
    return jax.jit(lambda own, rows: forward(own, state, rows, None)[0])(leaves, x)


def _value(loss: JaxLoss, output: Any, y: Array, part: slice) -> float:
    """Return the loss of some of the rows."""
    return float(loss.function(jax.tree.map(lambda one: one[part], output), jnp.asarray(y[part])))


def _called(loss: JaxLoss, function: Any, output: Any, y: Array) -> Any:
    try:
        return function(output, y)
    except Exception as error:
        single = isinstance(output, jax.ShapeDtypeStruct)
        given = f"outputs of shape {output.shape}" if single else f"a {type(output).__name__}"
        said, hint = str(error).split("\n", 1)[0], ""
        if isinstance(error, jax.errors.JAXTypeError):
            hint = "; it is compiled by jax.jit: compute with jax.numpy alone"
        elif isinstance(error, TypeError) and "not a valid JAX type" in str(error):
            hint = "; return the array itself, without float() or .item(), for its gradient"
        raise ValueError(
            f"{loss.name} cannot take {given} and targets of shape {y.shape}, dtype {y.dtype} ({type(error).__name__}: {said}{hint})"
        ) from error
