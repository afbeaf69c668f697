"""The flat model of a PyTorch module: its parameters are views into the vector, its gradients views into the rank's buffer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast, final

import numpy as np
import torch
from torch import Tensor, nn

from scaleml.arrays import Array, Matrix
from scaleml.frameworks.inputs import trial_rows
from scaleml.frameworks.layout import Layout
from scaleml.frameworks.network import ModuleNetwork, dense
from scaleml.frameworks.objective import Objective
from scaleml.frameworks.torch_binding import Binding, flattened, trainable
from scaleml.frameworks.torch_device import PROCESSOR, TorchDevice, placed, tensor_of
from scaleml.frameworks.torch_forward import Forward, Inputs, copied
from scaleml.frameworks.torch_losses import TorchLoss
from scaleml.frameworks.torch_module import Wrapper, made
from scaleml.frameworks.torch_movable import why_it_stays
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
    Unscaled,
    Weighing,
)
from scaleml.models.on_devices import Foreign, Skipping

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

    Attributes
    ----------
    place : callable
        Says of a vector where the module computes; changed by tests alone.

    Raises
    ------
    ValueError
        Module, loss and data do not fit each other.
    """

    framework: Final = "scaleml.frameworks.torch_device"

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
        self._objective = objective = Objective(loss.name, loss.targets, signature, loss.link)
        found = tried(copied(template), forward, loss.to(dtype), objective, dtype)
        self._loss, self._output, self._targets = found.loss, found.output, found.targets
        self._draws, self.least_rows = found.draws, found.least_rows
        self.buffer_rule: BufferRule = buffer_rule
        self._buffers, self.takes_as_it_is = found.buffers, found.takes_as_it_is
        self._held: Buffers | None = None
        self._place, self._calls = (0, 0, 0), 0
        layout = Layout(tuple(own), tuple(tuple(one.shape) for one in own.values()))
        super().__init__(layout, found.scorer, signature, str(dtype).removeprefix("torch."))
        self.place: Callable[[Array], TorchDevice] = placed
        self._device: TorchDevice = PROCESSOR
        self._loss_there = self._loss
        self._why_no_gpu: str | None = None
        self._binding: Binding | None = None
        self._training = False

    def __repr__(self) -> str:
        return f"TorchNetwork({type(self._template).__name__}, {self._loss.name}, size={self.size}, dtype={self.dtype.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        held = self._held if self._binding is None else self.buffers()
        here = {"_binding": None, "_training": False, "_device": PROCESSOR, "_loss_there": self._loss}
        return {**self.__dict__, **here, "_held": held}

    def why_no_gpu(self) -> str:
        """Return why the module cannot leave the processor, with the remedy; "" where nothing is known; see `Foreign`."""
        if self._why_no_gpu is None:
            module = self._template
            if isinstance(module, Wrapper):
                self._why_no_gpu = (
                    f"{module._get_name()} is of Keras, which keeps a device of its own: use device='cpu'"
                )
            else:
                self._why_no_gpu = why_it_stays(module, self._try_on)
        return self._why_no_gpu

    def _try_on(self, module: nn.Module, device: Inputs) -> None:
        rows = max(2, self.least_rows)
        output = self._forward(module, trial_rows(self.signature, rows), device)
        target = device.tensor(self._objective.trial_targets(rows)).to(self._targets)
        self._loss.on(device.place).total(output, target, None)

    @property
    def may_skip_rows(self) -> bool:
        """Whether the targets of a row may have it weigh nothing; see `Skipping`."""
        return self._loss.may_skip_rows

    def counts_all(self, y: Array) -> bool:
        """Whether each row weighs something by its targets; see `Skipping`."""
        return self._loss.counts_all(y)

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
        device = self._on(w)
        with device.queued(), contextlib.ExitStack() as seeds:
            if self._draws is not None:
                self._calls += 1
                key = key_of(*self._place, self._calls)
                seeds.enter_context(drawing(self._draws, key, device.generators))
            binding = self._bound(w, training=True)
            binding.begin(out, ready)
            loss, mass = self._total(self._called(binding.module, dense(x)), y, weights)
            if device is not PROCESSOR:
                seeds.close()  # `ready` may wait for other ranks, which may be threads of this process that want to draw
            loss.backward()
            binding.end()
            return device.number(loss), device.number(mass)

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
        with self._device.queued():
            self._buffers.check(self._binding.module, self._template)
            return self._buffers.read(self._binding.module)

    def set_buffers(self, buffers: Buffers) -> None:
        """Hold copies of these buffers."""
        self._held = buffers
        if self._binding is not None:
            with self._device.queued():
                self._buffers.write(self._binding.module, buffers)

    def release(self) -> None:
        """Leave the GPU, if there; see `Foreign`."""
        if self._device is PROCESSOR:
            return
        device = self._device
        with contextlib.suppress(RuntimeError, ValueError):  # else those of the last agreement
            self._held = self.buffers()
        self._leave(PROCESSOR)
        with contextlib.suppress(RuntimeError):  # of a GPU that has failed
            device.release()

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

    def _evaluated(self, w: Array, x: Array, y: Array, weights: Array | None) -> tuple[Array, float, float]:
        with self._on(w).queued(), torch.no_grad():
            output = self._called(self._bound(w, training=False).module, x)
            loss, mass = self._total(output, y, weights)
            outputs = self._device.array(output) if isinstance(output, Tensor) else np.empty(0)
            return outputs, float(loss), float(mass)

    def _outputs(self, w: Array, x: Array) -> Array:
        if not len(x):  # many layers take no batch of nothing
            return np.empty((0, *(self._output or ())), self.dtype)
        with self._on(w).queued(), torch.no_grad():
            module = self._bound(w, training=False).module
            output = self._called(module, x)
            if not isinstance(output, Tensor):
                raise ValueError(
                    f"{type(module).__name__} returns a {type(output).__name__}, so there is no one array to predict: use run.model.module"
                )
            return cast("Array", output.cpu().numpy())

    def _on(self, w: Array) -> TorchDevice:
        """Return where `w` lies, for what comes next."""
        if not self._device.holds(w):
            if self._binding is not None:
                self._held = self.buffers()
            self._leave(self.place(w))
        return self._device

    def _leave(self, device: TorchDevice) -> None:
        """Go to another device, with the buffers that are held."""
        self._binding, self._training = None, False
        self._device = device
        with device.queued():
            self._loss_there = self._loss.on(device.place)

    def _bound(self, w: Array, *, training: bool) -> Binding:
        """Return the module, its parameters views into `w`, in the mode."""
        binding = self._binding
        if binding is None:
            binding = Binding(copied(self._template).eval().to(self._device.place), self.layout, self._device)
            if self._held is not None:
                self._buffers.write(binding.module, self._held)
            self._binding = binding
        binding.params_from(w)
        if training != self._training:
            binding.module.train(training)
            self._training = training
        return binding

    def _total(self, output: Any, y: Array, weights: Array | None) -> tuple[Tensor, Tensor | float]:
        tensor = self._device.tensor
        target = tensor(y)
        target = target if target.dtype == self._targets else target.to(self._targets)
        return self._loss_there.total(output, target, None if weights is None else tensor(weights))

    def _called(self, module: nn.Module, x: Array) -> Any:
        output = self._forward(module, x, self._device)
        if self._output is not None and tuple(output.shape) != (len(x), *self._output):
            raise ValueError(
                f"{type(module).__name__} returns shape {tuple(output.shape)} for {len(x)} rows, but (rows, {self._output}) before: "
                "rows of one shape must give outputs of one shape"
            )
        return output


if TYPE_CHECKING:

    def _is_all_of(
        network: TorchNetwork,
    ) -> tuple[
        FlatModel,
        Layered,
        Scoring,
        Probabilistic,
        NamesScore,
        Stochastic,
        Buffered,
        Weighing,
        Normalising,
        Foreign,
        Skipping,
        Unscaled,
    ]:
        return (network,) * 12
