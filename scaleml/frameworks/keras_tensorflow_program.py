"""What TensorFlow computes of a Keras model: pure functions of slices of the vector, traced for each number of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, final

import numpy as np

from scaleml.arrays import Array
from scaleml.frameworks.inputs import kind_of, trial_rows
from scaleml.frameworks.keras_backend import loaded
from scaleml.frameworks.keras_losses import KerasLoss
from scaleml.frameworks.keras_outputs import scores
from scaleml.frameworks.keras_recipe import Recipe, array_of, is_seed
from scaleml.frameworks.layout import Layout
from scaleml.frameworks.objective import Objective
from scaleml.frameworks.scorer import Scorer
from scaleml.frameworks.tensorflow_loaded import start, tf
from scaleml.frameworks.tensorflow_losses import TensorflowLoss, reduction
from scaleml.models.base import Signature

__all__ = ["Program", "others_of"]

_ROWS: Final = 5
"""Made-up ones, on which a model is tried."""


@final
class Program:
    """What TensorFlow computes for a network: functions of the vector (P,), the state, rows, and where they say so of more.

    Parameters
    ----------
    recipe : Recipe
        Of the model.
    keras_loss : KerasLoss
        Says what is made of outputs.
    layout : Layout
        Of the vector.
    signature : Signature
    dtype : {"float32", "float64"}
        Of the parameters.
    """

    def __init__(self, recipe: Recipe, keras_loss: KerasLoss, layout: Layout, signature: Signature, dtype: str) -> None:
        self._recipe, self._keras_loss, self._layout = recipe, keras_loss, layout
        self._signature, self._dtype = signature, dtype
        self.loss = TensorflowLoss.of(keras_loss)
        self._begin()

    def _begin(self) -> None:
        self._made: Any = None
        self.gradient = tf.function(self._gradient)
        self.evaluated = tf.function(self._evaluated)
        self.outputs = tf.function(self._outputs)

    def __getstate__(self) -> dict[str, Any]:
        compiled = ("_made", "gradient", "evaluated", "outputs")
        return {name: value for name, value in self.__dict__.items() if name not in compiled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def model(self) -> Any:
        """The model that is called; its own variables are never read."""
        if self._made is None:
            start()
            self._made = self._recipe.model()
        return self._made

    @property
    def seeds(self) -> int:
        """How many layers draw random numbers."""
        return sum(is_seed(one) for one in self.model.non_trainable_variables)

    def state(self) -> list[Array]:
        """Return the other variables, but the seeds, as they are at the start."""
        return [array_of(one.value) for one in others_of(self.model)]

    def parts(self, x: Array) -> tuple[Any, ...]:
        """Return rows of X (n, ...) as tensors: one, or one for each input; whole numbers have 64 bits."""
        fields = [x[name] for name in self._recipe.fields.names] or [x]
        return tuple(
            tf.convert_to_tensor(one.astype(np.int64, copy=False) if kind_of(one.dtype) == "integer" else one)
            for one in fields
        )

    def called(self, leaves: list[Any], state: list[Any], parts: tuple[Any, ...], seeds: Any) -> tuple[Any, list[Any]]:
        """Return the outputs of rows, as the loss wants them, and the state after them; seeds are for training, None for evaluation."""
        model, others = self.model, others_of(self.model)
        given = [
            tf.cast(one, self._dtype) if kind_of(one.dtype.as_numpy_dtype().dtype) == "float" else one for one in parts
        ]
        fields = self._recipe.fields
        x: Any = given[0]
        if fields.names:
            x = dict(zip(fields.names, given, strict=True)) if fields.by_name else given
        mapping = [*zip(model.trainable_variables, leaves, strict=True), *zip(others, state, strict=True)]
        if seeds is not None:
            own = [one for one in model.non_trainable_variables if is_seed(one)]
            mapping += [(one, tf.cast(seeds[number], one.dtype)) for number, one in enumerate(own)]
        with loaded().StatelessScope(state_mapping=mapping) as scope:
            output = scores(model(x, training=seeds is not None), self._keras_loss)
        after = state if seeds is None else [scope.get_current_value(one) for one in others]
        return tf.nest.map_structure(self._in_dtype, output), after

    def _in_dtype(self, one: Any) -> Any:
        return tf.cast(one, self._dtype) if one.dtype.is_floating else one

    def _gradient(
        self, w: Any, state: list[Any], parts: tuple[Any, ...], y: Any, weights: Any, seeds: Any
    ) -> tuple[list[Any], Any, Any, list[Any]]:
        leaves = self.leaves(w)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(leaves)
            output, after = self.called(leaves, state, parts, seeds)
            loss, mass = self.loss.total(output, y, weights)
        grads = tape.gradient(loss, leaves, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(one) for one in grads], loss, tf.cast(mass, self._dtype), after

    def _evaluated(
        self, w: Any, state: list[Any], parts: tuple[Any, ...], y: Any, weights: Any
    ) -> tuple[Any, Any, Any]:
        output = self._outputs(w, state, parts)
        return output, *self.loss.total(output, y, weights)

    def _outputs(self, w: Any, state: list[Any], parts: tuple[Any, ...]) -> Any:
        return self.called(self.leaves(w), state, parts, None)[0]

    def leaves(self, w: Any) -> list[Any]:
        """Return the arrays that lie in the vector."""
        pairs = zip(self._layout.slices, self._layout.shapes, strict=True)
        return [tf.reshape(w[part], shape) for part, shape in pairs]

    def try_out(self, objective: Objective) -> tuple[Scorer, tuple[int, ...] | None, str]:
        """Return what outputs say, the shape of one, and the targets' dtype; find what a loss of the user's returns.

        Raises
        ------
        ValueError
            Outputs do not fit the targets, or the loss returns what no gradient can be made of.
        """
        loss, label = self.loss, self._recipe.label
        parts = self.parts(trial_rows(self._signature, _ROWS))
        leaves = [tf.convert_to_tensor(one.value) for one in self.model.trainable_variables]
        output, _ = self.called(leaves, [tf.constant(one) for one in self.state()], parts, None)
        shape = tuple(output.shape) if tf.is_tensor(output) else None
        if shape is None and loss.targets != "any":
            raise ValueError(f"{label} returns a {type(output).__name__}, but {loss.name} takes one array")
        if shape is not None and shape[:1] != (_ROWS,):
            raise ValueError(f"{label} returns shape {shape} for {_ROWS} rows: its first axis must be that of the rows")
        if loss.targets in ("labels", "numbers") and shape is not None:
            objective.check_alike(shape)
        kind = "int64" if objective.kind_of_targets(shape) == "integer" else self._dtype
        if loss.targets == "any":
            y = tf.constant(objective.trial_targets(_ROWS).astype(kind))
            loss = replace(loss, reduction=reduction(loss, output, y))
        scorer = objective.scorer(shape, loss.ignored)
        self.loss = replace(loss, axis=scorer.axis)
        return scorer, None if shape is None else shape[1:], kind


def others_of(model: Any) -> list[Any]:
    """Return the variables that are not trained, but the seeds."""
    return [one for one in model.non_trainable_variables if not is_seed(one)]
