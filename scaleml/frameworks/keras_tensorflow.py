"""The flat model of a Keras model on the TensorFlow backend: its gradients are copied into the rank's buffer, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

import numpy as np

from scaleml.arrays import Array, Matrix
from scaleml.frameworks.keras_losses import KerasLoss
from scaleml.frameworks.keras_outputs import check_outputs
from scaleml.frameworks.keras_recipe import Recipe, array_of
from scaleml.frameworks.keras_tensorflow_program import Program, others_of
from scaleml.frameworks.layout import Layout
from scaleml.frameworks.network import ModuleNetwork, dense
from scaleml.frameworks.objective import Objective
from scaleml.frameworks.state_buffers import from_buffers, to_buffers
from scaleml.frameworks.tensorflow_loaded import start, tf
from scaleml.models.base import Signature
from scaleml.models.buffers import BufferRule, Buffers
from scaleml.models.flat_model import Buffered, FlatModel, OfModule, Ready, Stochastic, Weighing

__all__ = ["TensorflowNetwork", "network_of"]


@final
class TensorflowNetwork(ModuleNetwork):
    """The arithmetic of a Keras model on TensorFlow and its loss for data of one signature.

    Copies share what is traced, pickles do not take it along.

    Parameters
    ----------
    recipe : Recipe
        Of the model.
    loss : KerasLoss
    signature : Signature
    dtype : {"float32", "float64"}
    buffer_rule : {"average", "rank0", "local"}
        What ranks agree on of variables that are not trained.

    Raises
    ------
    ValueError
        Model, loss and data do not fit each other.
    """

    def __init__(
        self, recipe: Recipe, loss: KerasLoss, signature: Signature, dtype: str, buffer_rule: BufferRule
    ) -> None:
        layout = Layout(recipe.names, recipe.shapes, leading=-1)
        self._recipe = recipe
        self._program = Program(recipe, loss, layout, signature, dtype)
        own = self._program.loss
        scorer, self._output, self._targets = self._program.try_out(
            Objective(own.name, own.targets, signature, own.link)
        )
        super().__init__(layout, scorer, signature, dtype)
        self.why_no_weights = self._program.loss.why_no_weights
        self.buffer_rule: BufferRule = buffer_rule
        self._first = self._program.state()
        self._state: list[Array] = self._first
        self._seeds = self._program.seeds
        self._place, self._calls = (0, 0, 0), 0
        self._needs = tf.GradientTape  # named in every pickle, so that workers are asked for TensorFlow

    def __repr__(self) -> str:
        return f"TensorflowNetwork({self._recipe.label}, {self._program.loss.name}, size={self.size}, dtype={self.dtype.name!r})"

    def init(self, seed: int) -> Array:
        """Return the parameters (P,) at the start: the model's own, or such as are drawn under the seed."""
        start()
        trained = self._recipe.start(seed).trainable_variables
        return np.concatenate([array_of(one.value).ravel() for one in trained]).astype(self.dtype)

    def loss_grad(
        self, w: Array, x: Matrix, y: Array, weights: Array | None, out: Array, ready: Ready | None = None
    ) -> tuple[float, float]:
        """Write the gradient of the summed loss into `out`; return the summed loss and weights; see `FlatModel.loss_grad`."""
        self._calls += 1
        numbers = [int(one) & 0xFFFFFFFF for one in (*self._place, self._calls)]
        drawn = np.random.SeedSequence(numbers).generate_state(2 * self._seeds) >> 1
        seeds = tf.constant(drawn.astype(np.int64).reshape(self._seeds, 2))
        grads, loss, mass, after = self._program.gradient(*self._given(w, dense(x)), *self._wanted(y, weights), seeds)
        self._state = [one.numpy() for one in after]
        self._hand_over(grads, out, ready)
        return float(loss), float(mass)

    def at(self, seed: int, step: int, rank: int) -> None:
        """Have the next gradients draw the random numbers of this place; see `Stochastic`."""
        self._place, self._calls = (seed, step, rank), 0

    def first_buffers(self) -> Buffers:
        """Return the buffers that training begins with; see `Buffered`."""
        return to_buffers(self._first, self.dtype)

    def buffers(self) -> Buffers:
        """Return copies of the buffers as they are now."""
        return to_buffers(self._state, self.dtype)

    def set_buffers(self, buffers: Buffers) -> None:
        """Hold copies of these buffers."""
        self._state = from_buffers(buffers, self._state)

    def module(self, w: Array) -> Any:
        """Return a plain Keras model with these parameters (P,), and the other variables as they are now."""
        model = self._recipe.model()
        leaves = [w[part].reshape(shape) for part, shape in zip(self.layout.slices, self.layout.shapes, strict=True)]
        for one, value in zip([*model.trainable_variables, *others_of(model)], [*leaves, *self._state], strict=True):
            one.assign(value)
        return model

    def _evaluated(self, w: Array, x: Array, y: Array, weights: Array | None) -> tuple[Array, float, float]:
        output, loss, mass = self._program.evaluated(*self._given(w, x), *self._wanted(y, weights))
        return output.numpy() if self._output is not None else np.empty(0), float(loss), float(mass)

    def _outputs(self, w: Array, x: Array) -> Array:
        if not len(x):
            return np.empty((0, *(self._output or ())), self.dtype)
        if self._output is None:
            raise ValueError(
                f"{self._recipe.label} returns no single array, so there is nothing to predict: call it with run.model.module"
            )
        found: Array = self._program.outputs(*self._given(w, x)).numpy()
        return found

    def _given(self, w: Array, x: Array) -> tuple[Any, list[Any], tuple[Any, ...]]:
        return tf.convert_to_tensor(w), [tf.convert_to_tensor(one) for one in self._state], self._program.parts(x)

    def _wanted(self, y: Array, weights: Array | None) -> tuple[Any, Any]:
        weigh = None if weights is None else tf.convert_to_tensor(weights.astype(self.dtype, copy=False))
        return tf.convert_to_tensor(y.astype(self._targets, copy=False)), weigh


def network_of(
    make: Callable[[], Any],
    signature: Signature,
    values: list[Array] | None,
    loss: KerasLoss,
    rule: BufferRule,
    dtype: str,
) -> TensorflowNetwork:
    """Return the flat model of a Keras model on TensorFlow."""
    recipe = Recipe(make, signature, values)
    check_outputs(recipe.model(), recipe, loss, signature)
    return TensorflowNetwork(recipe, loss, signature, dtype, rule)


if TYPE_CHECKING:

    def _is_all_of(network: TensorflowNetwork) -> tuple[FlatModel, OfModule, Stochastic, Buffered, Weighing]:
        return network, network, network, network, network
