"""A Keras model on the JAX backend as a pure function: its variables are arguments, and what a step changes comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, final

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

__all__ = ["KerasFunction", "network_of"]


@final
class KerasFunction:
    """A Keras model as a `Function`: its trained variables are leaves, all others the state.

    Layers that draw random numbers are given seeds made of the step's key.

    Parameters
    ----------
    recipe : Recipe
    loss : KerasLoss
    dtype : numpy.dtype
    """

    def __init__(self, recipe: Recipe, loss: KerasLoss, dtype: np.dtype[Any]) -> None:
        self._recipe, self._loss, self._dtype = recipe, loss, dtype
        self.label, self.names, self.shapes = recipe.label, recipe.names, recipe.shapes
        self._made: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}

    @property
    def _model(self) -> Any:
        if self._made is None:
            with precision(self._dtype):
                self._made = self._recipe.model()
        return self._made

    def start(self, seed: int) -> Leaves:
        """Return the trained variables that a run of this seed begins with."""
        with precision(self._dtype):
            return [np.asarray(one.value) for one in self._recipe.start(seed).trainable_variables]

    def state(self) -> Leaves:
        """Return the other variables."""
        return [np.asarray(one.value) for one in self._model.non_trainable_variables]

    def __call__(self, leaves: Leaves, state: Leaves, x: Any, key: jax.Array | None) -> tuple[Any, Leaves]:
        """Return the outputs of rows, as the loss wants them, and the other variables after them."""
        model = self._model
        others = model.non_trainable_variables
        if key is not None:
            state = [
                jax.random.key_data(jax.random.fold_in(key, number)).astype(value.dtype) if is_seed(one) else value
                for number, (one, value) in enumerate(zip(others, state, strict=True))
            ]
        mapping = [*zip(model.trainable_variables, leaves, strict=True), *zip(others, state, strict=True)]
        with loaded().StatelessScope(state_mapping=mapping) as scope:
            output = scores(model(x, training=key is not None), self._loss)
        return output, [scope.get_current_value(one) for one in others] if key is not None else state

    def module(self, leaves: Leaves, state: Leaves) -> Any:
        """Return a plain Keras model with these variables."""
        with precision(self._dtype):
            model = self._recipe.model()
            for one, value in zip(
                [*model.trainable_variables, *model.non_trainable_variables], [*leaves, *state], strict=True
            ):
                one.assign(np.asarray(value))
        return model


def network_of(
    make: Callable[[], Any], signature: Signature, values: list[Array] | None, loss: KerasLoss, dtype: str
) -> JaxNetwork:
    """Return the flat model of a Keras model on JAX."""
    with precision(np.dtype(dtype)):
        recipe = Recipe(make, signature, values)
        check_outputs(recipe.model(), recipe, loss, signature)
    if loss.name is None:
        assert loss.function is not None
        own = JaxLoss.of(loss.function)
    else:
        own = JaxLoss.of("nll" if loss.probabilities and loss.targets == "classes" else loss.name, loss.settings)
    return JaxNetwork(KerasFunction(recipe, loss, np.dtype(dtype)), replace(own, name=loss.label), signature, dtype)
