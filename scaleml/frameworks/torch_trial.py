"""Trial: a module and its loss are called on a few made-up rows before anything is placed, so that mistakes show at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from scaleml.arrays import Array
from scaleml.frameworks.ends import Squash, hint_of_squash, may_be_pixels
from scaleml.frameworks.inputs import trial_rows
from scaleml.frameworks.loss import Reduction, reduction_of
from scaleml.frameworks.objective import Objective
from scaleml.frameworks.scorer import Scorer
from scaleml.frameworks.torch_buffers import BufferLayout
from scaleml.frameworks.torch_ends import squash_of, takes_as_it_is
from scaleml.frameworks.torch_forward import Forward
from scaleml.frameworks.torch_losses import TorchLoss
from scaleml.frameworks.torch_random import Draws, drawn_by, seeded

__all__ = ["Found", "tried"]

_ROWS: Final = 5
_Dropout: Final = nn.modules.dropout._DropoutNd


class Found(NamedTuple):
    """What a trial has found."""

    loss: TorchLoss
    """Which knows what its function returns, and where the classes are."""
    scorer: Scorer
    output: tuple[int, ...] | None
    """Shape of a row's output; None where outputs are no single tensor."""
    targets: torch.dtype
    """In which the loss is given the targets."""
    draws: Draws
    """Whose random numbers the module draws in training."""
    least_rows: int
    """That it takes in training: two where it normalises over them."""
    buffers: BufferLayout
    """Which of the module's buffers travel."""
    takes_as_it_is: bool
    """Whether nothing scales rows that may be pixels before the first product."""


def tried(module: nn.Module, forward: Forward, loss: TorchLoss, objective: Objective, dtype: torch.dtype) -> Found:
    """Return what a trial finds.

    Raises
    ------
    ValueError
        The module cannot take rows of X, its outputs do not fit the targets, or the loss returns what no gradient can be made of.
    """
    x, y = trial_rows(objective.signature, _ROWS), objective.trial_targets(_ROWS)
    before = {name: one.clone() for name, one in module.named_buffers()}
    module.eval()
    with seeded(0):
        output = forward(module, x)
        shape = tuple(output.shape) if isinstance(output, Tensor) else None
        if loss.targets != "any":
            shape = _checked(output, module, loss, objective)
        elif shape is not None and shape[:1] != (_ROWS,):
            raise ValueError(_no_rows(module, shape))
        kind = torch.int64 if objective.kind_of_targets(shape) == "integer" else dtype
        target = torch.from_numpy(y).to(kind)
        if loss.targets == "any":
            loss = replace(loss, reduction=_reduction(loss, output, target, lambda part: forward(module, x[part])))
        scorer = objective.scorer(shape, loss.ignored)
        classes = objective.classes  # a code among which is none that counts nowhere, unless the loss says which
        loss = replace(loss, ignores=classes is None or 0 <= loss.ignored < classes)
        loss = replace(loss, axis=scorer.axis % len(shape) if loss.targets == "classes" and shape is not None else 1)
        if loss.targets == "classes" and shape is not None:
            _check_weights(loss, shape[loss.axis])
        total, _ = loss.total(output, target, None)
        as_it_is = may_be_pixels(objective.signature) and takes_as_it_is(module, forward, x[:1])
        module.train()
        draws = drawn_by(lambda: forward(module, x))
        buffers = BufferLayout.of(before, module, dtype)
        least = 1 if _takes(module, forward, x[:1]) else 2
    if not total.requires_grad:
        raise ValueError(
            f"{loss.name} of {type(module).__name__}'s outputs has no gradient: something between the parameters and the loss detaches, as "
            ".detach(), .item(), .numpy(), argmax or torch.no_grad() do"
        )
    if draws is None and any(isinstance(layer, _Dropout) for layer in module.modules()):
        draws = "torch"  # whose share may be nothing as yet
    if isinstance(output, Tensor):
        hint_of_squash(type(module).__name__, loss.name, loss.link, _squash(output, loss))
    return Found(loss, scorer, None if shape is None else shape[1:], kind, draws, least, buffers, as_it_is)


def _takes(module: nn.Module, forward: Forward, row: Array) -> bool:
    try:
        forward(module, row)
    except ValueError as error:
        return "normalises over a batch" not in str(error)
    return True


def _checked(output: Any, module: nn.Module, loss: TorchLoss, objective: Objective) -> tuple[int, ...]:
    name = type(module).__name__
    if not isinstance(output, Tensor):
        raise ValueError(
            f"{name} returns a {type(output).__name__}, but {loss.name} takes one tensor: have forward return that alone (of an LSTM "
            "output[0]), or pass a function as loss that takes what is needed"
        )
    shape = tuple(output.shape)
    if shape[:1] != (_ROWS,):
        raise ValueError(_no_rows(module, shape))
    if loss.targets != "classes":
        objective.check_alike(shape)
    return shape


def _check_weights(loss: TorchLoss, classes: int) -> None:
    weight = loss.settings.get("weight")
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ValueError(
            f"{loss.name} has weight of shape {tuple(weight.shape)}, but there are {classes} classes: give each one, in the order of the "
            "sorted labels"
        )


def _squash(output: Tensor, loss: TorchLoss) -> Squash | None:
    """Return what makes probabilities of the module's scores: by what it computed last, or by sums of 1 however they come about."""
    if loss.link == "softmax":
        sums = output.detach().sum(loss.axis)
        if bool((output >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
            return "softmax"
    return squash_of(output)


def _no_rows(module: nn.Module, shape: tuple[int, ...]) -> str:
    return (
        f"{type(module).__name__} returns shape {shape} for {_ROWS} rows: its first axis must be that of the rows; use "
        "batch_first=True in recurrent and transformer layers, and keep the rows apart in view and reshape"
    )


def _reduction(loss: TorchLoss, output: Any, target: Tensor, outputs: Any) -> Reduction:
    """Return what a function of the user's gives: one number a row, or else found by calling it on parts of the rows."""
    whole = _value(loss, output, target)
    if whole.ndim:
        if whole.shape == (_ROWS,):
            return "rows"
        trap = ""
        if whole.shape == (_ROWS, _ROWS):
            trap = "; were outputs of shape (rows, 1) and targets of shape (rows,) broadcast? Use output.squeeze(1)"
        raise ValueError(
            f"{loss.name} returns shape {tuple(whole.shape)} for {_ROWS} rows: return one number, the mean over the rows, or one number "
            f"a row{trap}"
        )

    found = reduction_of(lambda part: _value(loss, outputs(part), target[part]).item(), _ROWS)
    if found is not None:
        return found
    if isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] == 1 and target.ndim == 1:
        raise ValueError(
            f"{loss.name} is no mean over the rows: outputs have shape (rows, 1) and targets (rows,), which broadcast to (rows, rows); "
            "use output.squeeze(1)"
        )
    return "mean"


def _value(loss: TorchLoss, output: Any, target: Tensor) -> Tensor:
    try:
        value = loss.function(output, target)
    except Exception as error:
        given = (
            f"outputs of shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        )
        dtype = str(target.dtype).removeprefix("torch.")
        raise ValueError(
            f"{loss.name} cannot take {given} and targets of shape {tuple(target.shape)}, dtype {dtype} ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{loss.name} returns a {type(value).__name__}: return the tensor itself, without .item() or .detach(), for its gradient"
        )
    return value
