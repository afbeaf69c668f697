"""Blocks: the layers of a network, each the owner of one slice of the flat vector of parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from operator import methodcaller
from types import ModuleType
from typing import Any, final

import numpy as np

from scaleml.arrays import Array, Matrix, aligned, is_sparse, namespace
from scaleml.models.scalars import Scalars
from scaleml.models.transposed_product import transposed_product

__all__ = ["ACTIVATIONS", "Block", "Dense", "Score", "Workspace"]

ACTIVATIONS = ("relu", "tanh", "logistic", "identity")


@final
class Workspace:
    """Arrays to write into, one a role, kept between calls and grown when a batch has more rows.

    What a call returned lies here until the next call with the same workspace overwrites it. One thread at a time.

    Parameters
    ----------
    xp : module
        ``numpy`` or ``cupy``.
    dtype : str or dtype
        Of the parameters.

    Examples
    --------
    >>> import numpy as np
    >>> work = Workspace(np, "float32")
    >>> first = work.rows("scores", 8, 3)
    >>> np.shares_memory(first, work.rows("scores", 5, 3))
    True
    """

    __slots__ = ("_arrays", "dtype", "number", "scalars", "sum", "xp")

    def __init__(self, xp: ModuleType, dtype: str | np.dtype[Any]) -> None:
        self.xp = xp
        self.dtype = np.dtype(dtype)
        self.scalars = Scalars(xp, dtype)
        self.sum: Callable[[Array], Array] = np.add.reduce if xp is np else methodcaller("sum")
        """Of an array of one dimension: NumPy's method does the same by way of two functions of Python."""
        self.number: Callable[[Any], Any] = float if xp is np else lambda x: x
        """Of an array of no dimensions: on a GPU it stays one, for a look at it waits for all that is queued there."""
        self._arrays: dict[str, Array] = {}

    def rows(self, role: str, n: int, *width: int, dtype: type | np.dtype[Any] | None = None) -> Array:
        """Return an array of shape (n, *width), its values undefined; a role has one width and one dtype for ever."""
        array = self._arrays.get(role)
        if array is None or len(array) < n:
            array = self._arrays[role] = aligned(self.xp, (n, *width), dtype or self.dtype)
        return array if len(array) == n else array[:n]

    def row_numbers(self, n: int) -> Array:
        """Return ``arange(n)``."""
        array = self._arrays.get("row numbers")
        if array is None or len(array) < n:
            array = self._arrays["row numbers"] = self.xp.arange(n)
        return array[:n]


class Block(ABC):
    """One layer: parameters ``start:stop`` of the flat vector, a forward and a backward pass.

    Pure: what backward needs of forward is returned by forward, as `saved`, and used up by one backward. Without a
    workspace every result is a fresh array; with one, results lie in it, so that two batches in flight (microbatches
    of a pipeline) need one workspace each.

    Attributes
    ----------
    index : int
        Position in the network.
    start, stop : int
        The slice of the flat vector.
    in_features, out_features : int
    n_weights : int
        The first ``n_weights`` parameters of the slice are weights (penalised), the others biases.
    """

    index: int
    start: int
    stop: int
    in_features: int
    out_features: int
    n_weights: int

    @abstractmethod
    def narrowed(self, in_features: int) -> Block:
        """Return the same block for so many inputs."""

    @abstractmethod
    def forward(self, w: Array, x: Matrix, work: Workspace | None = None) -> tuple[Array, Any]:
        """Return the block's output and what its backward pass needs.

        Parameters
        ----------
        w : array of shape (stop - start,)
            The block's own slice, not the whole vector.
        x : array of shape (n, in_features)
            Or, for a first block, a CSR matrix.
        work : Workspace, optional

        Returns
        -------
        y : array of shape (n, out_features), or (n,) for `Score`
        saved : object
        """

    @abstractmethod
    def backward(
        self, w: Array, saved: Any, dy: Array, out: Array, need_dx: bool = True, work: Workspace | None = None
    ) -> Array | None:
        """Write the gradient with respect to the parameters into `out`, return that with respect to the input.

        Parameters
        ----------
        w : array of shape (stop - start,)
            The block's own slice.
        saved : object
            What `forward` returned; used up.
        dy : array of the shape of y
            Gradient with respect to the output; overwritten.
        out : array of shape (stop - start,)
            The block's slice of the gradient: the sum over the rows, written, not added.
        need_dx : bool
            False for the first block, whose input has no gradient.
        work : Workspace, optional

        Returns
        -------
        array of shape (n, in_features) or None
        """


@final
class Dense(Block):
    """``activation(x @ W + b)``: W of shape (in_features, out_features) row by row, then b.

    Parameters
    ----------
    index, start : int
        Position in the network and in the flat vector.
    in_features, out_features : int
    activation : {"relu", "tanh", "logistic", "identity"}
    bias : bool

    Examples
    --------
    >>> import numpy as np
    >>> y, saved = Dense(0, 0, 2, 2, "relu").forward(np.array([1.0, 0, 0, 1, 0, -5]), np.array([[3.0, 4.0]]))
    >>> y.tolist()
    [[3.0, 0.0]]
    """

    def __init__(
        self, index: int, start: int, in_features: int, out_features: int, activation: str, bias: bool = True
    ) -> None:
        self.index, self.start, self.in_features, self.out_features = index, start, in_features, out_features
        self.n_weights = in_features * out_features
        self.stop = start + self.n_weights + (out_features if bias else 0)
        self.activation = activation
        self.bias = bias
        self._y, self._dx, self._mask = f"y{index}", f"dx{index}", f"mask{index}"

    def __repr__(self) -> str:
        shape = f"{self.in_features}, {self.out_features}"
        return f"Dense({self.index}, {self.start}, {shape}, {self.activation!r}, {self.bias})"

    def narrowed(self, in_features: int) -> Dense:
        """Return the same block for so many inputs."""
        return Dense(self.index, self.start, in_features, self.out_features, self.activation, self.bias)

    def forward(self, w: Array, x: Matrix, work: Workspace | None = None) -> tuple[Array, Any]:
        """Return the output (n, out_features) and what backward needs; see `Block.forward`."""
        work = work or Workspace(namespace(w), w.dtype)
        weights = w[: self.n_weights].reshape(self.in_features, self.out_features)
        if type(x) is not np.ndarray and is_sparse(x):
            y = (x @ weights).astype(w.dtype, copy=False)
        else:
            y = work.rows(self._y, len(x), self.out_features)
            work.xp.matmul(x, weights, out=y)
        if self.bias:
            y += w[self.n_weights :]
        _activate(work.xp, self.activation, y)
        return y, (x, y)

    def backward(
        self, w: Array, saved: Any, dy: Array, out: Array, need_dx: bool = True, work: Workspace | None = None
    ) -> Array | None:
        """Write the gradient into `out`, return dx (n, in_features) if needed; see `Block.backward`."""
        work = work or Workspace(namespace(w), w.dtype)
        x, y = saved
        if self.activation == "relu":
            mask = work.rows(self._mask, len(y), self.out_features, dtype=bool)
            work.xp.greater(y, 0, out=mask)
            dy *= mask
        else:
            _multiply_slope(work.xp, self.activation, y, dy)
        shape = (self.in_features, self.out_features)
        gradient = out[: self.n_weights].reshape(shape)
        if type(x) is not np.ndarray and is_sparse(x):
            gradient[...] = transposed_product(x, dy)
        else:
            work.xp.matmul(x.T, dy, out=gradient)
        if self.bias:
            dy.sum(axis=0, out=out[self.n_weights :])
        if not need_dx:
            return None
        dx = work.rows(self._dx, len(y), self.in_features)
        work.xp.matmul(dy, w[: self.n_weights].reshape(shape).T, out=dx)
        return dx


@final
class Score(Block):
    """``x @ w + b`` with one output, of shape (n,): a last block for two classes or one target.

    Parameters
    ----------
    index, start : int
        Position in the network and in the flat vector.
    in_features : int
    bias : bool

    Examples
    --------
    >>> import numpy as np
    >>> Score(0, 0, 2).forward(np.array([1.0, 2, 10]), np.array([[3.0, 4.0]]))[0].tolist()
    [21.0]
    """

    def __init__(self, index: int, start: int, in_features: int, bias: bool = True) -> None:
        self.index, self.start, self.in_features, self.out_features = index, start, in_features, 1
        self.n_weights = in_features
        self.stop = start + in_features + (1 if bias else 0)
        self.bias = bias
        self._y, self._dx = f"y{index}", f"dx{index}"

    def __repr__(self) -> str:
        return f"Score({self.index}, {self.start}, {self.in_features}, {self.bias})"

    def narrowed(self, in_features: int) -> Score:
        """Return the same block for so many inputs."""
        return Score(self.index, self.start, in_features, self.bias)

    def forward(self, w: Array, x: Matrix, work: Workspace | None = None) -> tuple[Array, Any]:
        """Return the scores (n,) and what backward needs; see `Block.forward`."""
        n = self.n_weights
        if type(x) is not np.ndarray and is_sparse(x):
            y = (x @ w[:n]).astype(w.dtype, copy=False)
        else:
            work = work or Workspace(namespace(w), w.dtype)
            y = work.rows(self._y, len(x))
            _product(work.xp, x, w[:n], y)
        if self.bias:
            y += w[n:]
        return y, x

    def backward(
        self, w: Array, saved: Any, dy: Array, out: Array, need_dx: bool = True, work: Workspace | None = None
    ) -> Array | None:
        """Write the gradient into `out`, return dx (n, in_features) if needed; see `Block.backward`."""
        work = work or Workspace(namespace(w), w.dtype)
        n = self.n_weights
        if type(saved) is not np.ndarray and is_sparse(saved):
            out[:n] = transposed_product(saved, dy)
        else:
            _product(work.xp, dy, saved, out[:n])
        if self.bias:
            out[n] = work.sum(dy)
        if not need_dx:
            return None
        dx = work.rows(self._dx, len(dy), n)
        work.xp.multiply(dy[:, None], w[:n], out=dx)
        return dx


def _product(xp: ModuleType, a: Array, b: Array, out: Array) -> None:
    """Write ``a @ b`` into `out`; NumPy's ``dot`` comes to the same product of BLAS in half the time, but converts nothing."""
    if xp is np and a.dtype == b.dtype == out.dtype:
        a.dot(b, out)
    else:
        xp.matmul(a, b, out=out)


def _activate(xp: ModuleType, activation: str, y: Array) -> None:
    """Apply the activation in place."""
    if activation == "relu":
        xp.maximum(y, 0, out=y)
    elif activation == "tanh":
        xp.tanh(y, out=y)
    elif activation == "logistic":  # by tanh: no exp that could overflow
        y *= 0.5
        xp.tanh(y, out=y)
        y *= 0.5
        y += 0.5


def _multiply_slope(xp: ModuleType, activation: str, y: Array, dy: Array) -> None:
    """Multiply `dy` by the activation's derivative, in terms of its output `y`; both are overwritten."""
    if activation == "tanh":
        xp.multiply(y, y, out=y)
        xp.subtract(1, y, out=y)
        dy *= y
    elif activation == "logistic":
        dy *= y
        xp.subtract(1, y, out=y)
        dy *= y
