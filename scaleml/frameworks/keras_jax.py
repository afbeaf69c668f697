"""A Keras model on the JAX backend as a pure function: its variables are arguments, and what a step changes comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, final

import jax
import numpy as np

from scaleml.arrays import Array
from scaleml.frameworks.jax_function import Leaves, precision
from scaleml.frameworks.jax_losses import JaxLoss
from scaleml.frameworks.jax_network import JaxNetwork
from scaleml.frameworks.keras_backend import loaded
from scaleml.frameworks.keras_losses import KerasLoss
from scaleml.frameworks.keras_outputs import check_outputs, scores
from scaleml.frameworks.keras_recipe import Recipe, is_seed
from scaleml.models.base import Signature
from scaleml.models.buffers import BufferRule

__all__ = ["KerasFunction", "network_of"]

_DTYPE: Final = np.dtype("float32")
"""In which Keras computes."""


@final
class KerasFunction:
    """A Keras model as a `Function`: its trained variables are leaves, all others the state.

    Layers that draw random numbers are given seeds made of the step's key.

    Parameters
    ----------
    recipe : Recipe
    loss : KerasLoss
    """

    def __init__(self, recipe: Recipe, loss: KerasLoss) -> None:
        self._recipe, self._loss = recipe, loss
        self.label, self.names, self.shapes = recipe.label, recipe.names, recipe.shapes
        self._made: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}

    @property
    def _model(self) -> Any:
        if self._made is None:
            with precision(_DTYPE):
                self._made = self._recipe.model()
        return self._made

    @property
    def _others(self) -> list[Any]:
        return _others(self._model)

    def start(self, seed: int) -> Leaves:
        """Return the trained variables that a run of this seed begins with."""
        with precision(_DTYPE):
            return [np.asarray(one.value) for one in self._recipe.start(seed).trainable_variables]

    def state(self) -> Leaves:
        """Return the other variables, but the seeds."""
        return [np.asarray(one.value) for one in self._others]

    def __call__(self, leaves: Leaves, state: Leaves, x: Any, key: jax.Array | None) -> tuple[Any, Leaves]:
        """Return the outputs of rows, as the loss wants them, and the other variables after them."""
        model, others = self._model, self._others
        mapping = [*zip(model.trainable_variables, leaves, strict=True), *zip(others, state, strict=True)]
        if key is not None:
            seeds = [one for one in model.non_trainable_variables if is_seed(one)]
            for number, one in enumerate(seeds):
                mapping.append((one, jax.random.key_data(jax.random.fold_in(key, number)).astype(one.dtype)))
        with loaded().StatelessScope(state_mapping=mapping) as scope:
            output = scores(model(x, training=key is not None), self._loss)
        return output, state if key is None else [scope.get_current_value(one) for one in others]

    def module(self, leaves: Leaves, state: Leaves) -> Any:
        """Return a plain Keras model with these variables."""
        with precision(_DTYPE):
            model = self._recipe.model()
            own = [*model.trainable_variables, *_others(model)]
            for one, value in zip(own, [*leaves, *state], strict=True):
                one.assign(np.asarray(value))
        return model


def _others(model: Any) -> list[Any]:
    return [one for one in model.non_trainable_variables if not is_seed(one)]


def network_of(
    make: Callable[[], Any], signature: Signature, values: list[Array] | None, loss: KerasLoss, rule: BufferRule
) -> JaxNetwork:
    """Return the flat model of a Keras model on JAX."""
    with precision(_DTYPE):
        recipe = Recipe(make, signature, values)
        check_outputs(recipe.model(), recipe, loss, signature)
    if loss.name is None:
        assert loss.function is not None
        own = JaxLoss.of(loss.function)
    else:
        own = JaxLoss.of("nll" if loss.probabilities and loss.targets == "classes" else loss.name, loss.settings)
    return JaxNetwork(KerasFunction(recipe, loss), replace(own, name=loss.label), signature, "float32", rule)
