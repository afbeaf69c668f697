"""A Keras model on the PyTorch backend as a module: its parameters have Keras's names and order, and views serve as they do for others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import nn

from scaleml.arrays import Array
from scaleml.frameworks.keras_losses import KerasLoss
from scaleml.frameworks.keras_outputs import check_outputs, scores
from scaleml.frameworks.keras_recipe import Recipe, is_seed
from scaleml.frameworks.torch_forward import Forward
from scaleml.frameworks.torch_losses import TorchLoss
from scaleml.frameworks.torch_module import Wrapper
from scaleml.frameworks.torch_network import TorchNetwork
from scaleml.models.base import Signature
from scaleml.models.buffers import BufferRule

__all__ = ["KerasModule", "network_of"]


@final
class KerasModule(Wrapper):
    """A Keras model behind PyTorch's interface.

    In training, layers that draw random numbers are given seeds that are drawn from PyTorch's generator: who seeds that, seeds all.

    Parameters
    ----------
    recipe : Recipe
        By which it is copied and pickled.
    model : keras.Model
        Made by it.
    loss : KerasLoss
        Says what is made of outputs.
    """

    def __init__(self, recipe: Recipe, model: Any, loss: KerasLoss) -> None:
        super().__init__()
        self.wrapped = model
        self._recipe, self._loss = recipe, loss
        self._seeds = [one for one in model.non_trainable_variables if is_seed(one)]

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasModule:
        return _remade(self._recipe, self._values(), self._loss)

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self._recipe, self._values(), self._loss)

    def _values(self) -> list[Array]:
        return [one.value.detach().numpy().copy() for one in self.wrapped.variables]

    def _get_name(self) -> str:
        return self._recipe.label

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the variables that are trained, by their paths."""
        yield from zip(self._recipe.names, (one.value for one in self.wrapped.trainable_variables), strict=True)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the other variables, but the seeds: those of normalisation, and those that are not trainable."""
        others = (one.value for one in self.wrapped.non_trainable_variables if not is_seed(one))
        yield from zip(self._recipe.others, others, strict=True)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the outputs of rows, as the loss wants them."""
        if self.training:
            for one in self._seeds:
                one.assign(torch.randint(2**31 - 1, (2,)))
        x = named or (inputs[0] if len(inputs) == 1 else list(inputs))
        return scores(self.wrapped(x, training=self.training), self._loss)


def _remade(recipe: Recipe, values: list[Array], loss: KerasLoss) -> KerasModule:
    return KerasModule(recipe, recipe.model(values), loss)


@final
@dataclass(frozen=True)
class Starting:
    """A factory of the modules that runs begin with."""

    recipe: Recipe
    loss: KerasLoss

    def __call__(self) -> KerasModule:
        """Return one whose weights are drawn from the process's streams."""
        return KerasModule(self.recipe, self.recipe.drawn_model(), self.loss)


def network_of(
    make: Callable[[], Any], signature: Signature, values: list[Array] | None, loss: KerasLoss, rule: BufferRule
) -> TorchNetwork:
    """Return the flat model of a Keras model on PyTorch."""
    recipe = Recipe(make, signature, values)
    template = recipe.model()
    check_outputs(template, recipe, loss, signature)
    if loss.name is None:
        assert loss.function is not None
        own = TorchLoss.of(loss.function)
    else:
        own = TorchLoss.of("nll" if loss.probabilities and loss.targets == "classes" else loss.name)
        settings = {{"ignored": "ignore_index"}.get(key, key): value for key, value in loss.settings.items()}
        own = replace(own, settings=settings)
    forward = Forward(signature, torch.float32, None, None)
    factory = Starting(recipe, loss) if recipe.drawn else None
    return TorchNetwork(
        KerasModule(recipe, template, loss), factory, forward, replace(own, name=loss.label), signature, rule
    )
