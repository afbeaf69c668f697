"""Losses of PyTorch: by name, as ``torch.nn`` has them, or any function of outputs and targets; summed over rows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleml.arrays import Array
from scaleml.escaping import printable
from scaleml.frameworks.loss import Loss
from scaleml.frameworks.objective import LINKS, LOSSES, canonical_name
from scaleml.frameworks.scorer import IGNORED

__all__ = ["LossLike", "TorchLoss"]

LossLike = str | Callable[[Any, Any], Tensor]
"""A loss's name, or a function of outputs and targets."""

_FUNCTIONS: Final[dict[str, Callable[..., Tensor]]] = {
    "cross_entropy": functional.cross_entropy,
    "nll": functional.nll_loss,
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "huber": functional.huber_loss,
    "smooth_l1": functional.smooth_l1_loss,
}
_MODULES: Final[dict[type[nn.Module], tuple[str, tuple[str, ...]]]] = {
    nn.CrossEntropyLoss: ("cross_entropy", ("weight", "ignore_index", "label_smoothing")),
    nn.NLLLoss: ("nll", ("weight", "ignore_index")),
    nn.BCEWithLogitsLoss: ("binary_cross_entropy", ("weight", "pos_weight")),
    nn.MSELoss: ("mse", ()),
    nn.L1Loss: ("l1", ()),
    nn.HuberLoss: ("huber", ("delta",)),
    nn.SmoothL1Loss: ("smooth_l1", ("beta",)),
}
"""What ``torch.nn`` has of them, and its settings."""


@final
@dataclass(frozen=True, eq=False)
class TorchLoss(Loss):
    """A loss of PyTorch: its function, but the user's own, takes ``reduction``, and settings are those of ``torch.nn``; see `Loss`."""

    axis: int = 1
    ignores: bool = True
    """Whether targets may be of the class that counts nowhere."""

    @staticmethod
    def of(loss: LossLike) -> TorchLoss:
        """Return the loss of that name, or made of what ``torch.nn`` has, or of a function.

        Raises
        ------
        ValueError, TypeError
            For what is none, with the remedy.
        """
        if isinstance(loss, str):
            return _named(canonical_name(loss), {})
        for name, function in _FUNCTIONS.items():
            if loss is function:
                return _named(name, {})
        kind = type(loss)
        if kind in _MODULES:
            name, settings = _MODULES[kind]
            if getattr(loss, "reduction", "mean") == "sum":
                raise ValueError(
                    f"loss={loss!r} with reduction='sum': ranks sum over rows themselves and divide by all rows of a batch; leave "
                    "reduction out: steps are those of the mean, so multiply a learning rate chosen for the sum by the batch's rows"
                )
            return _named(name, {one: getattr(loss, one) for one in settings}, f"{kind.__name__}()")
        return _of_the_user(loss)

    @property
    def ignored(self) -> int:
        """The class code of what counts nowhere."""
        return int(self.settings.get("ignore_index", IGNORED))

    def check_labels(self, labels: Array) -> None:
        """Raise ValueError where ignore_index means another class than in PyTorch: the n labels are codes in sorted order here.

        Parameters
        ----------
        labels : array (n,)
            All that y has, sorted.
        """
        count, ignored = len(labels), self.ignored
        are_codes = labels.dtype.kind in "biuf" and np.array_equal(labels, np.arange(count))
        if self.targets != "classes" or are_codes or not (ignored in labels.tolist() or 0 <= ignored < count):
            return
        if ignored in labels.tolist():
            what = f"of y, whose labels are not 0, 1, ..., {count - 1}, it would make a class of {ignored} or ignore another"
        else:
            what = f"y has no such label, and its class with the code {ignored} is {printable(labels[ignored])}"
        raise ValueError(
            f"{self.name} ignores {ignored}, but labels become codes in their sorted order, and {what}: leave the rows that are to be "
            f"ignored out of X and y, or give y the numbers 0 to {count - 1} and ignore_index one of these"
        )

    def to(self, dtype: torch.dtype) -> TorchLoss:
        """Return it for outputs of this dtype."""
        return replace(
            self,
            settings={
                name: value.detach().to("cpu", dtype) if isinstance(value, Tensor) else value
                for name, value in self.settings.items()
            },
        )

    def on(self, place: torch.device) -> TorchLoss:
        """Return it for outputs on another device."""
        own = self.function
        return replace(
            self,
            function=copy.deepcopy(own).to(place) if isinstance(own, nn.Module) else own,
            settings={
                name: value.to(place) if isinstance(value, Tensor) else value for name, value in self.settings.items()
            },
        )

    @property
    def may_skip_rows(self) -> bool:
        """Whether a row's targets may count nothing, by themselves."""
        return self.targets == "classes" and (self.ignores or self.settings.get("weight") is not None)

    def counts_all(self, y: Array) -> bool:
        """Whether each row of targets (n, ...), in the processor's memory, counts something."""
        counts = self._counts(torch.from_numpy(np.array(y, np.int64)), self.settings.get("weight"))
        return bool((counts.reshape(len(y), math.prod(y.shape[1:])).sum(1) > 0).all())

    def total(self, output: Any, target: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """Return the weighted sum of the rows' losses, with its graph, and what it is to be divided by for their mean.

        A row's loss is the mean over its targets that count. No tensor is looked at, so that nobody waits for a GPU.

        Parameters
        ----------
        output : tensor of shape (n, ...), or what else a module returns, for a function of the user's
        target : tensor of shape (n, ...)
        weights : tensor of shape (n,) or None

        Raises
        ------
        ValueError
            There are weights, but no loss of each row.
        """
        rows = len(target)
        if self.targets == "any":
            return self._of_any(output, target, weights)
        if self.targets == "classes":
            output = output if self.axis == 1 else output.movedim(self.axis, 1)
        else:
            output = output.reshape(target.shape)  # (n, 1) beside (n,) is never broadcast
        items = target.numel() // rows if target.ndim > 1 else 1
        class_weight = self.settings.get("weight") if self.targets == "classes" else None
        if weights is None and class_weight is None:
            loss = self.function(output, target, reduction="sum", **self.settings)
            mass: Tensor | float = float(rows)
            if self.targets == "classes" and self.ignores:
                mass = (target != self.ignored).sum().double() / items
            return (loss if items == 1 else loss / items), mass
        each = self.function(output, target, reduction="none", **self.settings).reshape(rows, -1).sum(1)
        counts = self._counts(target, class_weight).reshape(rows, -1).sum(1)
        if weights is not None:
            each, counts = each * weights, counts * weights
        return each.sum() / items, counts.sum().double() / items

    def _counts(self, target: Tensor, class_weight: Tensor | None) -> Tensor:
        """Return what each target counts."""
        if self.targets != "classes":
            return torch.ones(target.shape, device=target.device)
        valid = target != self.ignored
        return valid.float() if class_weight is None else class_weight[target.where(valid, 0)] * valid


def _named(name: str, settings: Mapping[str, Any], words: str = "") -> TorchLoss:
    return TorchLoss(f"loss={words or repr(name)}", LOSSES[name][0], _FUNCTIONS[name], LINKS.get(name), settings)


def _of_the_user(loss: Any) -> TorchLoss:
    if isinstance(loss, type) and issubclass(loss, nn.Module):
        raise TypeError(f"loss={loss.__name__} is a class: call it, {loss.__name__}()")
    if isinstance(loss, nn.BCELoss) or loss is functional.binary_cross_entropy:
        raise ValueError(
            "loss is the binary cross entropy of probabilities: leave out the module's last sigmoid and use "
            "loss='binary_cross_entropy', which is PyTorch's BCEWithLogitsLoss and exact for large scores, too"
        )
    if isinstance(loss, torch.optim.Optimizer):
        raise TypeError(
            "loss is an optimizer of PyTorch's: TorchModel takes the module and the loss, such as loss='cross_entropy'; the optimizer "
            "is train's, such as scaleml.train(model, X, y, optimizer=scaleml.SGD(0.1))"
        )
    if isinstance(loss, Tensor) or not callable(loss):
        kind = type(loss).__name__
        raise TypeError(
            f"loss is a {kind}: must be a name such as 'cross_entropy' or 'mse', a loss of torch.nn, or a function of (outputs, targets)"
        )
    if isinstance(loss, nn.Module) and any(one.requires_grad for one in loss.parameters()):
        raise ValueError(
            f"loss={type(loss).__name__}() has parameters that would not be trained: make it a part of the module, which then "
            "returns what the loss needs"
        )
    name = getattr(loss, "__name__", type(loss).__name__)
    return TorchLoss(f"loss={name}", "any", loss)
