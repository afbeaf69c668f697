"""What is said when a PyTorch module's forward fails: on its first rows, which do not fit it, or later, for reasons of its own."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from scaleml.arrays import Array
from scaleml.frameworks.inputs import described

__all__ = ["why_refused"]

_LIBRARIES: Final = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))
"""Whose lines are not the user's."""
_KERAS: Final = f"{os.sep}keras{os.sep}src{os.sep}"


def why_refused(module: nn.Module, x: Array, inputs: list[Tensor], error: Exception, *, is_first: bool) -> str:
    """Return what a module failed by, and what to do.

    Parameters
    ----------
    module : nn.Module
    x : array (n, ...)
        The rows.
    inputs : list of tensors (n, ...)
        What was made of them.
    error : Exception
        What the forward, or the transform, raised.
    is_first : bool
        Whether it has taken no such rows yet.
    """
    name, raised = type(module).__name__, f"{type(error).__name__}: {error}"
    if len(x) == 1 and module.training and "more than 1 value per channel" in str(error):
        return (
            f"{name} normalises over a batch, but a rank's part of this batch is one row: choose a batch_size that leaves "
            "every rank two rows at least, also of the last batch of an epoch, or a layer that normalises within a row, such as GroupNorm"
        )
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return (
            f"{name} has not enough memory on its GPU for {len(x)} rows ({error}): choose a smaller batch_size, microbatch= to compute "
            "it in parts, compute='bfloat16', or more workers with a GPU each"
        )
    if "device-side assert" in str(error):
        return (
            f"a kernel that was queued for {name} has failed on its GPU ({str(error).partition(chr(10))[0]}): most often X has a number "
            "that an embedding has no vector of; device='cpu' says which. The worker's process cannot use the GPU any more: restart it"
        )
    if "same device" in str(error):
        return (
            f"{name} raised {raised}{_place(error)}: make tensors where the input is, as in torch.arange(n, device=x.device), and "
            "constants by register_buffer; or use device='cpu'"
        )
    number = _out_of_range(module, error)
    if number:
        return f"{name} was given {number}"
    given = " and ".join(f"{tuple(one.shape[1:])} as {str(one.dtype).removeprefix('torch.')}" for one in inputs)
    if not is_first:
        return (
            f"{name} raised {raised}{_place(error)}, on {len(x)} rows of shape {given}, such as it has taken before: look at that line, "
            "and at the values of these rows"
        )
    layers = (
        (path, one) for path, one in module.named_modules() if next(one.parameters(recurse=False), None) is not None
    )
    path, layer = next(layers, ("", module))
    return (
        f"{name} does not take these rows: given {len(x)} made-up rows of shape {given}, it raised {raised}{_place(error)}. A row of X has "
        f"{described(x)}; the first layer with parameters is {f'{path}: ' if path else ''}{layer}. Give X the shape and dtype that it "
        "wants, or use transform=."
    )


def _place(error: Exception) -> str:
    """Return the line of the user's that failed; nothing where there is none."""
    for line in reversed(traceback.extract_tb(error.__traceback__)):
        if not line.filename.startswith(_LIBRARIES) and _KERAS not in line.filename:
            code = f": {line.line}" if line.line else ""
            return f" ({line.filename}, line {line.lineno}, in {line.name}{code})"
    return ""


def _out_of_range(module: nn.Module, error: Exception) -> str:
    """Return which number an embedding has no vector of, in words; nothing where that is not what failed."""
    step = error.__traceback__ if isinstance(error, IndexError) else None
    while step is not None:
        found = step.tb_frame.f_locals
        layer, numbers = found.get("self"), found.get("input")
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and isinstance(numbers, Tensor) and numbers.numel():
            least, most = int(numbers.min()), int(numbers.max())
            if least >= 0 and most < layer.num_embeddings:
                return ""
            path = next((path for path, one in module.named_modules() if one is layer), "")
            wrong, of = least if least < 0 else most, f"its layer {path}" if path else "it"
            return (
                f"the number {wrong}, but {of} has num_embeddings={layer.num_embeddings}, vectors of 0 to "
                f"{layer.num_embeddings - 1} alone: make num_embeddings larger than the largest number of X, or give rarer tokens one "
                "number for all"
            )
        step = step.tb_next
    return ""
