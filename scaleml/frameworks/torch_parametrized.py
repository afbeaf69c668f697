"""Parametrised layers of PyTorch, such as those of spectral and weight norm, which PyTorch itself does not pickle."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils import parametrize

__all__ = ["let_travel"]


def let_travel(module: nn.Module) -> nn.Module:
    """Return a module whose parametrised layers can be pickled from now on, as can copies of it: their class is theirs alone.

    Examples
    --------
    >>> import pickle, cloudpickle
    >>> from torch.nn.utils.parametrizations import weight_norm
    >>> layer = let_travel(weight_norm(nn.Linear(2, 1)))
    >>> bool((pickle.loads(cloudpickle.dumps(layer)).weight == layer.weight).all())
    True
    """
    for layer in module.modules():
        if parametrize.is_parametrized(layer) and type(layer).__name__.startswith("Parametrized"):
            type(layer).__reduce_ex__ = _reduced  # type: ignore[assignment, method-assign]
    return module


def _reduced(layer: nn.Module, protocol: int) -> tuple[Any, ...]:
    return _remade, (type(layer).__bases__[0], dict(vars(layer)))


def _remade(kind: type[nn.Module], state: dict[str, Any]) -> nn.Module:
    layer = kind.__new__(kind)
    vars(layer).update(state)
    parametrize._inject_new_class(layer)
    for name in list(state["_modules"]["parametrizations"]):
        parametrize._inject_property(layer, name)
    return let_travel(layer)
