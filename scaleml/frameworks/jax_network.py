"""The flat model of a function of JAX: it is given slices of the vector, and its gradients are copied into the rank's buffer, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import jax
import numpy as np

from scaleml.arrays import Array, Matrix
from scaleml.frameworks.jax_function import Function, Leaves, precision
from scaleml.frameworks.jax_losses import JaxLoss
from scaleml.frameworks.jax_program import Forward, Program
from scaleml.frameworks.jax_trial import tried
from scaleml.frameworks.layout import Layout
from scaleml.frameworks.network import ModuleNetwork, dense
from scaleml.frameworks.objective import Objective
from scaleml.frameworks.state_buffers import from_buffers, to_buffers
from scaleml.models.base import Signature
from scaleml.models.buffers import BufferRule, Buffers
from scaleml.models.flat_model import (
    Buffered,
    FlatModel,
    Layered,
    NamesScore,
    OfModule,
    Probabilistic,
    Ready,
    Scoring,
    Stochastic,
    Unscaled,
    Weighing,
)

__all__ = ["JaxNetwork"]


@final
class JaxNetwork(ModuleNetwork):
    """The arithmetic of a function of JAX and its loss for data of one signature.

    JAX computes on the device that is its default in the process, and starts there with the first call. Copies share what is
    compiled, pickles do not take it along.

    Parameters
    ----------
    function : Function
    loss : JaxLoss
    signature : Signature
    dtype : {"float32", "float64"}
    buffer_rule : {"average", "rank0", "local"}
        What ranks agree on of a state, such as running statistics.

    Raises
    ------
    ValueError
        Function, loss and data do not fit each other.
    """

    def __init__(
        self,
        function: Function,
        loss: JaxLoss,
        signature: Signature,
        dtype: str,
        buffer_rule: BufferRule = "average",
    ) -> None:
        self._function, self._loss = function, loss
        layout = Layout(function.names, function.shapes, leading=-1)
        found = None
        own = np.dtype(dtype)
        with precision(own):
            objective = Objective(loss.name, loss.targets, signature, loss.link)
            found = tried(Forward(function, signature, own), loss, objective, layout)
        super().__init__(layout, found.scorer, signature, dtype)
        self._program: Program = found.program
        self.why_no_weights = found.program.loss.why_no_weights
        self.takes_as_it_is = found.takes_as_it_is
        self._state: Leaves = function.state()
        self.buffer_rule: BufferRule = buffer_rule
        self._place, self._calls = (0, 0, 0), 0
        self._needs = jax.device_put  # named in every pickle, so that workers are asked for JAX

    def __repr__(self) -> str:
        return f"JaxNetwork({self._function.label}, {self._loss.name}, size={self.size}, dtype={self.dtype.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_state": [np.asarray(one) for one in self._state]}

    def init(self, seed: int) -> Array:
        """Return the parameters (P,) at the start: the user's own, or what is made of the seed's key."""
        flat = np.empty(self.size, self.dtype)
        for part, one in zip(self.layout.slices, self._function.start(seed), strict=True):
            flat[part] = np.ravel(one)
        return flat

    def loss_grad(
        self, w: Array, x: Matrix, y: Array, weights: Array | None, out: Array, ready: Ready | None = None
    ) -> tuple[float, float]:
        """Write the gradient of the summed loss into `out`; return the summed loss and weights; see `FlatModel.loss_grad`.

        JAX has all gradients at once: parts are final as they are copied.
        """
        with precision(self.dtype):
            parts = self._program.forward.parts(dense(x))
            self._calls += 1
            draw = np.array([*self._place, self._calls]).astype(np.uint32)
            grads, loss, mass, self._state = self._program.gradient(
                _shared(w), self._state, parts, y, self._weights(weights), draw
            )
            found = float(loss), float(mass)  # waits for all: what JAX was given may change again
        self._hand_over(grads, out, ready)
        return found

    def at(self, seed: int, step: int, rank: int) -> None:
        """Have the next gradients draw the random numbers of this place; see `Stochastic`."""
        self._place, self._calls = (seed, step, rank), 0

    def first_buffers(self) -> Buffers:
        """Return the buffers that training begins with; see `Buffered`."""
        return to_buffers(self._function.state(), self.dtype)

    def buffers(self) -> Buffers:
        """Return copies of the buffers as they are now."""
        return to_buffers(self._state, self.dtype)

    def set_buffers(self, buffers: Buffers) -> None:
        """Hold copies of these buffers."""
        self._state = from_buffers(buffers, self._state)

    def module(self, w: Array) -> Any:
        """Return what the user gets: of a plain function its pytree of parameters, as arrays of JAX."""
        leaves = [w[part].reshape(shape) for part, shape in zip(self.layout.slices, self.layout.shapes, strict=True)]
        return self._function.module(leaves, self._state)

    def _evaluated(self, w: Array, x: Array, y: Array, weights: Array | None) -> tuple[Array, float, float]:
        with precision(self.dtype):
            parts = self._program.forward.parts(x)
            output, loss, mass = self._program.evaluated(_shared(w), self._state, parts, y, self._weights(weights))
            return np.array(output) if self._program.output is not None else np.empty(0), float(loss), float(mass)

    def _outputs(self, w: Array, x: Array) -> Array:
        if not len(x):
            return np.empty((0, *(self._program.output or ())), self.dtype)
        if self._program.output is None:
            raise ValueError(
                f"{self._function.label} returns no single array, so there is nothing to predict: call it with run.model.module"
            )
        with precision(self.dtype):
            return np.array(self._program.outputs(_shared(w), self._state, self._program.forward.parts(x)))

    def _weights(self, weights: Array | None) -> Array | None:
        return None if weights is None else weights.astype(self.dtype, copy=False)


def _shared(w: Array) -> Any:
    """Return a vector as an array of JAX, in the same memory where it lies as JAX wants it (on 64 bytes, of a CPU), else a copy."""
    return jax.device_put(w)


if TYPE_CHECKING:

    def _is_all_of(
        network: JaxNetwork,
    ) -> tuple[
        FlatModel, Layered, Scoring, Probabilistic, NamesScore, OfModule, Stochastic, Buffered, Weighing, Unscaled
    ]:
        return (network,) * 10
