"""The two ends of a function of JAX: whether rows reach its first product as they are, and what squashes its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from scaleml.frameworks.ends import Squash

__all__ = ["squash_of", "takes_as_it_is"]

_PRODUCTS: Final = ("dot_general", "conv_general_dilated")
_SAME_NUMBERS: Final = (
    *("reshape", "squeeze", "transpose", "convert_element_type", "broadcast_in_dim", "expand_dims", "slice", "dynamic_slice"),
    *("concatenate", "pad", "rev", "copy", "copy_p", "stop_gradient", "split", "reduce_window_max"),
)  # fmt: skip
"""Operations that leave numbers as they are, wherever they put them."""


def takes_as_it_is(jaxpr: Any, inputs: Sequence[Any]) -> bool:
    """Return whether a product, such as a convolution's, is given numbers of the variables `inputs` that nothing has scaled.

    Parameters
    ----------
    jaxpr : jax.extend.core.Jaxpr
        Of the function, as ``jax.make_jaxpr`` makes it.
    """
    return _follow(jaxpr, {id(one) for one in inputs})[1]


def _follow(jaxpr: Any, same: set[int]) -> tuple[set[int], bool]:
    """Return which variables hold the same numbers, and whether a product is given one of them."""
    found = False
    for step in jaxpr.eqns:
        given = [id(one) in same for one in step.invars]
        name, inner = step.primitive.name, _inner(step)
        if not any(given):
            continue
        found = found or name in _PRODUCTS
        if inner is not None:
            inside, also = _follow(
                inner, {id(one) for one, is_same in zip(inner.invars, given, strict=True) if is_same}
            )
            found = found or also
            same |= {id(out) for out, own in zip(step.outvars, inner.outvars, strict=False) if id(own) in inside}
        elif name in _SAME_NUMBERS:
            same |= {id(out) for out in step.outvars}
    return same, found


def squash_of(jaxpr: Any) -> Squash | None:
    """Return what the first output of a traced function was made by last, but for its shape: a sigmoid or a softmax; else None.

    Examples
    --------
    >>> import jax
    >>> squash_of(jax.make_jaxpr(lambda x: jax.nn.softmax(x @ x))(jax.numpy.ones((2, 2))).jaxpr)
    'softmax'
    """
    return _made_by(jaxpr, jaxpr.outvars[0]) if jaxpr.outvars else None


def _made_by(jaxpr: Any, variable: Any) -> Squash | None:
    made = {id(out): step for step in jaxpr.eqns for out in step.outvars}
    for step in _back(made, variable):
        inner = _inner(step)
        if inner is not None:
            place = [id(out) for out in step.outvars].index(id(variable))
            return _made_by(inner, inner.outvars[place]) if place < len(inner.outvars) else None
        name = step.primitive.name
        if name == "logistic":
            return "sigmoid"
        if name == "div" and _is_softmax(made, step):
            return "softmax"
        if name not in _SAME_NUMBERS:
            return None
        variable = step.invars[0]
    return None


def _is_softmax(made: dict[int, Any], step: Any) -> bool:
    """Whether a division is that of exponentials by their own sum."""
    above, below = (list(_back(made, one)) for one in step.invars)
    sums = next((one for one in below if one.primitive.name not in _SAME_NUMBERS), None)
    return (
        bool(above)
        and above[0].primitive.name == "exp"
        and sums is not None
        and sums.primitive.name == "reduce_sum"
        and id(sums.invars[0]) == id(step.invars[0])
    )


def _back(made: dict[int, Any], variable: Any) -> Iterator[Any]:
    """Yield what made a variable, and what made the first operand of that, and so on."""
    while (step := made.get(id(variable))) is not None:
        yield step
        variable = step.invars[0] if step.invars else None


def _inner(step: Any) -> Any:
    """Return what a step calls, of which each variable is one of the step's; None for what is no call."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        found = step.params.get(name)
        found = getattr(found, "jaxpr", found)
        if hasattr(found, "eqns") and len(found.invars) == len(step.invars):
            return found
    return None
