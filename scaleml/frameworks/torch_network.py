"""The flat model of a PyTorch module: its parameters are views into the vector, its gradients views into the rank's buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor, nn

from scaleml.arrays import Array, Matrix
from scaleml.frameworks.layout import Layout
from scaleml.frameworks.network import ModuleNetwork, dense
from scaleml.frameworks.objective import Objective
from scaleml.frameworks.torch_binding import Binding, flattened, trainable
from scaleml.frameworks.torch_forward import Forward, copied, tensor_of
from scaleml.frameworks.torch_losses import TorchLoss
from scaleml.frameworks.torch_module import Wrapper, made
from scaleml.frameworks.torch_random import drawing, key_of
from scaleml.frameworks.torch_trial import tried
from scaleml.models.base import Signature
from scaleml.models.buffers import BufferRule, Buffers
from scaleml.models.flat_model import (
    Buffered,
    FlatModel,
    Layered,
    NamesScore,
    Normalising,
    Probabilistic,
    Ready,
    Scoring,
    Stochastic,
    Weighing,
)

__all__ = ["TorchNetwork"]


@final
class TorchNetwork(ModuleNetwork):
    """The arithmetic of a PyTorch module and its loss for data of one signature.

    Safe in one thread at a time, for it keeps a module bound to the vectors of the last call; a copy (``copy.copy``, pickle) makes
    one of its own.

    Parameters
    ----------
    template : nn.Module
        What ranks copy: buffers and parameters that are not trained are this one's.
    factory : callable or None
        Makes the module that a run begins with, under its seed; None for the template's parameters.
    forward : Forward
        Calls modules on rows.
    loss : TorchLoss
    signature : Signature
    buffer_rule : {"average", "rank0", "local"}
        What ranks agree on.

    Raises
    ------
    ValueError
        Module, loss and data do not fit each other.
    """

    def __init__(
        self,
        template: nn.Module,
        factory: Callable[[], nn.Module] | None,
        forward: Forward,
        loss: TorchLoss,
        signature: Signature,
        buffer_rule: BufferRule = "average",
    ) -> None:
        self._template, self._factory = template, factory
        self._forward = forward
        own = trainable(template)
        dtype = next(iter(own.values())).dtype
        objective = Objective(loss.name, loss.targets, signature, loss.link)
        found = tried(copied(template), forward, loss.to(dtype), objective, dtype)
        self._loss, self._output, self._targets = found.loss, found.output, found.targets
        self._draws, self.least_rows = found.draws, found.least_rows
        self.buffer_rule: BufferRule = buffer_rule
        self._buffers = found.buffers
        self._held: Buffers | None = None
        self._place, self._calls = (0, 0, 0), 0
        layout = Layout(tuple(own), tuple(tuple(one.shape) for one in own.values()))
        super().__init__(layout, found.scorer, signature, str(dtype).removeprefix("torch."))
        self._binding: Binding | None = None
        self._training = False

    def __repr__(self) -> str:
        return f"TorchNetwork({type(self._template).__name__}, {self._loss.name}, size={self.size}, dtype={self.dtype.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        held = self._held if self._binding is None else self.buffers()
        return {**self.__dict__, "_binding": None, "_training": False, "_held": held}

    def init(self, seed: int) -> Array:
        """Return the parameters (P,) at the start: the module's own, or what the factory makes under the seed."""
        module = self._template
        if self._factory is not None:
            module = made(self._factory, seed, next(iter(trainable(module).values())).dtype)
            if tuple(trainable(module)) != self.layout.names:
                raise ValueError("the factory makes another module in each call: its parameters have other names")
        return flattened(module, self.layout, self.dtype)

    def loss_grad(
        self, w: Array, x: Matrix, y: Array, weights: Array | None, out: Array, ready: Ready | None = None
    ) -> tuple[float, float]:
        """Write the gradient of the summed loss into `out`; return the summed loss and weights; see `FlatModel.loss_grad`."""
        if self._draws is None:
            return self._loss_grad(w, dense(x), y, weights, out, ready)
        self._calls += 1
        with drawing(self._draws, key_of(*self._place, self._calls)):
            return self._loss_grad(w, dense(x), y, weights, out, ready)

    def at(self, seed: int, step: int, rank: int) -> None:
        """Have the next gradients draw the random numbers of this place; see `Stochastic`."""
        self._place, self._calls = (seed, step, rank), 0

    @property
    def why_no_weights(self) -> str:
        """Why rows cannot weigh anything, with the remedy; "" where they can; see `Weighing`."""
        return self._loss.why_no_weights

    def first_buffers(self) -> Buffers:
        """Return the buffers that training begins with; see `Buffered`."""
        return self._buffers.read(self._template)

    def buffers(self) -> Buffers:
        """Return copies of the buffers as they are now.

        Raises
        ------
        ValueError
            One has changed that no rank could have known of, or its shape has.
        """
        if self._binding is None:
            return self._held or self.first_buffers()
        self._buffers.check(self._binding.module, self._template)
        return self._buffers.read(self._binding.module)

    def set_buffers(self, buffers: Buffers) -> None:
        """Hold copies of these buffers."""
        self._held = buffers
        if self._binding is not None:
            self._buffers.write(self._binding.module, buffers)

    def module(self, w: Array) -> Any:
        """Return a plain module with these parameters (P,) and the buffers as they are now, in evaluation mode.

        Where it stands for another framework's model, that.
        """
        module = copied(self._template)
        self._buffers.write(module, self.buffers())
        with torch.no_grad():
            for one, part in zip(trainable(module).values(), self.layout.slices, strict=True):
                one.copy_(tensor_of(np.ascontiguousarray(w[part])).view(one.shape))
        module.eval()
        return module.wrapped if isinstance(module, Wrapper) else module

    def _loss_grad(
        self, w: Array, x: Array, y: Array, weights: Array | None, out: Array, ready: Ready | None
    ) -> tuple[float, float]:
        binding = self._bound(w, training=True)
        binding.begin(out, ready)
        output = self._called(binding.module, x)
        loss, mass = self._loss.total(output, self._target(y), None if weights is None else tensor_of(weights))
        loss.backward()
        binding.end()
        return loss.item(), mass

    def _evaluated(self, w: Array, x: Array, y: Array, weights: Array | None) -> tuple[Array, float, float]:
        module = self._bound(w, training=False).module
        with torch.no_grad():
            output = self._called(module, x)
            loss, mass = self._loss.total(output, self._target(y), None if weights is None else tensor_of(weights))
        return self._array(output), loss.item(), mass

    def _outputs(self, w: Array, x: Array) -> Array:
        module = self._bound(w, training=False).module
        if not len(x):  # many layers take no batch of nothing
            return np.empty((0, *(self._output or ())), self.dtype)
        with torch.no_grad():
            output = self._called(module, x)
        if not isinstance(output, Tensor):
            raise ValueError(
                f"{type(module).__name__} returns a {type(output).__name__}, so there is no one array to predict: use run.model.module"
            )
        return self._array(output)

    def _bound(self, w: Array, *, training: bool) -> Binding:
        """Return the module, its parameters views into `w`, in the mode."""
        binding = self._binding
        if binding is None:
            binding = Binding(copied(self._template).eval(), self.layout)
            if self._held is not None:
                self._buffers.write(binding.module, self._held)
            self._binding = binding
        binding.params_from(w)
        if training != self._training:
            binding.module.train(training)
            self._training = training
        return binding

    def _called(self, module: nn.Module, x: Array) -> Any:
        output = self._forward(module, x)
        if self._output is not None and tuple(output.shape) != (len(x), *self._output):
            raise ValueError(
                f"{type(module).__name__} returns shape {tuple(output.shape)} for {len(x)} rows, but (rows, {self._output}) before: "
                "rows of one shape must give outputs of one shape"
            )
        return output

    def _target(self, y: Array) -> Tensor:
        target = tensor_of(y)
        return target if target.dtype == self._targets else target.to(self._targets)

    @staticmethod
    def _array(output: Any) -> Array:
        return output.detach().numpy() if isinstance(output, Tensor) else np.empty(0)


if TYPE_CHECKING:

    def _is_all_of(
        network: TorchNetwork,
    ) -> tuple[FlatModel, Layered, Scoring, Probabilistic, NamesScore, Stochastic, Buffered, Weighing, Normalising]:
        return network, network, network, network, network, network, network, network, network
