"""Modules of PyTorch as users pass them: made by their factory under a seed, checked, and known to travel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm

from scaleml.frameworks.torch_forward import copied
from scaleml.frameworks.torch_random import seeded
from scaleml.frameworks.travel import why_it_stays

__all__ = ["ModuleLike", "Wrapper", "check_module", "check_travels", "made"]


class Wrapper(nn.Module):
    """A module that stands for a model of another framework, which users get in its place.

    Attributes
    ----------
    wrapped : object
        That model.
    """

    wrapped: Any


ModuleLike = nn.Module | Callable[[], nn.Module]
"""A module, or what makes one."""

_WRAPPERS: Final = {
    "DataParallel": "scaleml divides the rows itself: pass what it wraps, module.module",
    "DistributedDataParallel": "scaleml sums the gradients itself: pass what it wraps, module.module",
    "FullyShardedDataParallel": "scaleml holds the parameters itself: pass the module before it was wrapped",
    "OptimizedModule": "ranks cannot be sent compiled code: pass the module before torch.compile",
}
"""By the name of their class, wrappers that do what a strategy does, and what to pass instead."""


def made(module: ModuleLike, seed: int, dtype: torch.dtype) -> nn.Module:
    """Return a copy of a module in a dtype, or what a factory makes under a seed.

    Raises
    ------
    ValueError, TypeError
        For what cannot be trained, with the remedy.
    """
    if isinstance(module, nn.Module):
        return copied(check_module(module, dtype)).to(dtype)
    with seeded(seed):
        try:
            own = module()
        except TypeError as error:
            name = getattr(module, "__name__", repr(module))
            if isinstance(module, type):
                raise TypeError(
                    f"{name} is a class that cannot be called without arguments ({error}): pass a module, {name}(...), or a factory, "
                    f"lambda: {name}(...)"
                ) from error
            raise TypeError(f"the factory {name} cannot be called without arguments, or failed: {error}") from error
    if not isinstance(own, nn.Module):
        raise TypeError(
            f"{getattr(module, '__name__', module)!r} returns a {type(own).__name__}, but a factory has to return a torch.nn.Module"
        )
    return check_module(own, dtype).to(dtype)


def check_kind(module: object) -> None:
    """Raise TypeError unless it is a module or a factory of modules."""
    if isinstance(module, torch.optim.Optimizer):
        raise TypeError(
            "module is an optimizer of PyTorch's: pass the module; the optimizer is train's, such as optimizer=scaleml.SGD(0.1)"
        )
    if any(one.__module__.partition(".")[0] == "keras" for one in type(module).__mro__):
        raise TypeError(
            "module is of Keras: pass it as scaleml.KerasModel(model, loss=...), which knows its modes and its losses"
        )
    if isinstance(module, type) and not issubclass(module, nn.Module):
        raise TypeError(
            f"module is the class {module.__name__}, which is no torch.nn.Module: pass a module, or a factory"
        )
    if not isinstance(module, nn.Module) and not callable(module):
        extra = "; load_state_dict it into a module first" if isinstance(module, dict) else ""
        raise TypeError(
            f"module is a {type(module).__name__}: must be a torch.nn.Module, or a function that makes one{extra}"
        )


def check_module(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a module that can be trained in a dtype on a CPU, or raise ValueError with the remedy."""
    kind = type(module).__name__
    for path, layer in module.named_modules():
        wrapper = type(layer).__name__
        if wrapper in _WRAPPERS:
            raise ValueError(f"{f'the layer {path!r}' if path else 'module'} is a {wrapper}: {_WRAPPERS[wrapper]}")
    for name, one in _arrays(module):
        if torch.nn.parameter.is_lazy(one):
            raise ValueError(
                f"{kind} has not seen its first input: {name!r} has no shape yet; call the module once on a batch, "
                "module(torch.zeros(2, ...)), also in a factory, before it is returned"
            )
        if one.device.type == "meta":
            raise ValueError(
                f"{kind} is on the device 'meta', so {name!r} has no values: pass a factory that makes it, or module.to_empty"
            )
        if one.device.type != "cpu":
            raise ValueError(
                f"{kind} is on the device {str(one.device)!r} ({name!r}): pass module.cpu(); ranks bring their copies to their devices"
            )
    wanted = str(dtype).removeprefix("torch.")
    trained = [(name, one) for name, one in module.named_parameters() if one.requires_grad]
    if not trained:
        count = sum(1 for _ in module.parameters())
        why = f"none of its {count} parameters has requires_grad" if count else "it has no parameters"
        raise ValueError(
            f"{kind} has nothing to train: {why}; set requires_grad_(True) on those that are to be trained"
        )
    for name, one in trained:
        own = str(one.dtype).removeprefix("torch.")
        if own in ("bfloat16", "float16"):
            raise ValueError(
                f"{name!r} is {own}, in which small updates are lost: pass module.float(), and compute='bfloat16' for speed"
            )
        if one.dtype != dtype and own != "float32":
            raise ValueError(
                f"{name!r} is {own}, but dtype={wanted!r}: pass dtype={own!r}, or module.to(torch.{wanted})"
            )
    return module


def check_same_rest(module: ModuleLike, first: nn.Module, dtype: torch.dtype) -> None:
    """Raise ValueError where what is not trained differs from call to call of a factory: it travels from one of them to all ranks."""
    rest = _untrained(first)
    if isinstance(module, nn.Module) or not rest:
        return
    other = _untrained(made(module, 1, dtype))
    for name, one in rest.items():
        if name not in other or not torch.equal(one, other[name]):
            raise ValueError(
                f"the factory draws {name!r} anew in each call, and it is not trained: runs of another seed would go on with that of the "
                "first; draw it with a generator of its own, torch.Generator().manual_seed(0), or pass the module itself"
            )


def _untrained(module: nn.Module) -> dict[str, Tensor]:
    iterated = {
        id(one)
        for layer in module.modules()
        if isinstance(layer, _SpectralNorm)
        for one in layer.buffers(recurse=False)
    }  # go on to the weights' own from any start
    return {
        name: one.detach()
        for name, one in _arrays(module)
        if not (isinstance(one, nn.Parameter) and one.requires_grad) and id(one) not in iterated
    }


def _arrays(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def check_travels(**parts: object) -> None:
    """Raise ValueError for what cannot be pickled, with the attribute that cannot, and why.

    Parameters
    ----------
    **parts
        What is to be sent, by the name that the error calls it.
    """
    for name, part in parts.items():
        error = why_it_stays(part)
        if error is None:
            continue
        where, cause = _culprit(name, part) or (name, error)
        raise ValueError(
            f"{where} cannot be sent to workers ({type(cause).__name__}: {cause}): make it where it is needed, in forward, or leave it "
            "out of pickles with __getstate__ and make it anew in __setstate__"
        )


def _culprit(name: str, part: object) -> tuple[str, Exception] | None:
    """Return the innermost attribute of a module that cannot be pickled, and why."""
    if not isinstance(part, nn.Module):
        return None
    for path, layer in part.named_modules():
        for key, value in vars(layer).items():
            if key in ("_modules", "_parameters", "_buffers"):
                continue
            error = why_it_stays(value)
            if error is not None:
                within = ".".join(one for one in (name, path, key) if one)
                return f"{within}, a {type(value).__name__},", error
    return None
