"""The two ends of a module of PyTorch: whether rows reach its first product as they are, and what squashes its outputs."""

from __future__ import annotations

from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from scaleml.arrays import Array
from scaleml.frameworks.ends import Squash
from scaleml.frameworks.torch_forward import Forward

__all__ = ["squash_of", "takes_as_it_is"]

_PRODUCTS: Final = frozenset(
    {"convolution", "mm", "addmm", "bmm", "baddbmm", "linear", "mv", "mkldnn_rnn_layer", "lstm", "gru", "dot"}
)
_SAME_NUMBERS: Final = frozenset(
    {
        *("_to_copy", "to", "clone", "contiguous", "detach", "alias", "lift_fresh", "view", "_unsafe_view", "reshape", "flatten"),
        *("_reshape_alias", "t", "transpose", "permute", "movedim", "squeeze", "unsqueeze", "expand", "select", "slice", "split"),
        *("unbind", "cat", "stack", "constant_pad_nd", "unfold", "im2col", "max_pool2d_with_indices", "as_strided", "flip"),
    }
)  # fmt: skip
"""Operations that leave numbers as they are, wherever they put them."""
_SAME_BACKWARD: Final = (
    *("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Select", "Slice", "T", "Transpose", "Permute", "Expand"),
    *("ToCopy", "Clone", "Alias"),
)  # fmt: skip
_SQUASHES: Final[dict[str, Squash]] = {"Sigmoid": "sigmoid", "Hardsigmoid": "sigmoid", "Softmax": "softmax"}


def squash_of(output: Tensor) -> Squash | None:
    """Return what a tensor was made by last, but for its shape: a sigmoid or a softmax; None for all else.

    Examples
    --------
    >>> scores = torch.zeros(2, 1, requires_grad=True)
    >>> squash_of(torch.sigmoid(scores)[:, 0]), squash_of(2 * torch.sigmoid(scores))
    ('sigmoid', None)
    """
    node: Any = output.grad_fn
    while node is not None:
        name = node.name().partition("Backward")[0]
        if name not in _SAME_BACKWARD:
            return _SQUASHES.get(name)
        node = node.next_functions[0][0]
    return None


def takes_as_it_is(module: nn.Module, forward: Forward, x: Array) -> bool:
    """Return whether a product, such as a convolution's, is given numbers of the rows `x` (n, ...) that nothing has scaled.

    False where it cannot be told.
    """
    watch = _Watch(x)
    try:
        with torch.no_grad(), watch:
            forward(module, x)
    except Exception:  # noqa: BLE001  such as one that is compiled: nothing is said of it
        return False
    return watch.found


@final
class _Watch(TorchDispatchMode):
    """Follows the numbers of X through what PyTorch computes, as long as they stay what they are."""

    def __init__(self, x: Array) -> None:
        super().__init__()
        self.found = False
        self._start, self._stop = x.ctypes.data, x.ctypes.data + x.nbytes
        self._single = x.dtype.names is None
        self._same: dict[int, Tensor] = {}  # kept, so that no other gets its number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if any(map(self._is_same, _tensors(args))):
            name = func._schema.name.partition("::")[2]
            self.found = self.found or name in _PRODUCTS
            if name.endswith("_") and isinstance(args[0], Tensor):
                self._same.pop(id(args[0]), None)  # changed where it lies
            elif name in _SAME_NUMBERS:
                self._same.update((id(one), one) for one in _tensors((found,)))
        return found

    def _is_same(self, one: Tensor) -> bool:
        is_input = one.dtype == torch.uint8 or (self._single and self._start <= one.data_ptr() < self._stop)
        return is_input or id(one) in self._same


def _tensors(args: Any) -> list[Tensor]:
    inner = (one for arg in args for one in (arg if isinstance(arg, list | tuple) else (arg,)))
    return [one for one in inner if isinstance(one, Tensor)]
