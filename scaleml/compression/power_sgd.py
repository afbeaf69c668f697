"""Weight matrices as products of thin ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array, namespace
from scaleml.checks import check_integer
from scaleml.comm.communicator import Communicator
from scaleml.compression.base import NO_CONTEXT, Codec, CodecContext, check_finite
from scaleml.compression.error_feedback import PREFIX


class Factors(NamedTuple):
    """A matrix of the vector, and where its factors lie among all left and all right ones."""

    where: slice
    shape: tuple[int, int]
    left: slice
    right: slice
    rank: int


class Cut(NamedTuple):
    """What is made of a vector: matrices with their factors, and the rest of it, which is sent as it is."""

    factors: tuple[Factors, ...]
    rest: tuple[slice, ...]
    left: int
    """Items of all left factors; those of the rest follow them."""
    first: int
    right: int


@final
@dataclass(frozen=True, repr=False)
class PowerSGD(Codec):
    """Each weight matrix as a product of rank `rank`, by one step of the power method that starts at the last one's end.

    ::

        P <- M Q;         P <- sum over ranks (all-reduce);   P <- orthonormal basis of P's columns
        Q <- M^T P;       Q <- sum over ranks (all-reduce);   decoded:  P Q^T

    Biases, and matrices that two factors would not make smaller, travel as they are, with the first all-reduce. A
    matrix of rank `rank` that stays the same comes out exactly; of one rank's matrix nothing grows, ``|M - P Q^T| <=
    |M|``. To a server both factors go as one payload.

    Parameters
    ----------
    rank : int
        Columns of the factors, at least 1.

    Raises
    ------
    ValueError
        For another rank.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.compression import PowerSGD, CodecContext
    >>> matrix = np.outer(np.arange(1, 7), np.arange(1, 9)).astype(np.float32)
    >>> context, out = CodecContext(matrices=((0, 6, 8),)), np.empty(48, np.float32)
    >>> payload = PowerSGD(rank=1).encode(matrix.ravel(), context)
    >>> PowerSGD(rank=1).decode(payload, out, context)
    >>> len(payload), bool(np.allclose(out, matrix.ravel(), atol=1e-4))
    (56, True)

    References
    ----------
    Vogels, Karimireddy and Jaggi, PowerSGD: practical low-rank gradient compression for distributed optimization,
    NeurIPS 2019, arXiv:1905.13727.
    """

    code: ClassVar[int] = 6
    rank: int = 2

    def __post_init__(self) -> None:
        rule = "a positive integer, the columns of the factors; 1 to 4 are usual"
        object.__setattr__(self, "rank", check_integer("rank", self.rank, 1, rule=rule))

    def nbytes(self, n: int, dtype: DTypeLike, context: CodecContext = NO_CONTEXT) -> int:
        """Return the bytes of both factors of each matrix, and of what is sent as it is."""
        cut = self._cut(n, context)
        return (cut.first + cut.right) * np.dtype(dtype).itemsize

    def encode(
        self,
        x: Array,
        context: CodecContext = NO_CONTEXT,
        lost: Array | None = None,
        state: dict[str, Array] | None = None,
    ) -> Array:
        """Return the left factors, what is sent as it is, and the right factors."""
        check_finite(x, context)
        cut = self._cut(len(x), context)
        right = self._start(cut, x, context, {} if state is None else state)
        first = _left(cut, x, right)
        _right(cut, x, first, right)
        if lost is not None:
            _lose(cut, x, first, right, lost)
        return namespace(x).concatenate([first, right]).view(np.uint8)

    def decode(self, payload: Array, out: Array, context: CodecContext = NO_CONTEXT) -> None:
        """Write the products, and the rest as it came."""
        self._check(payload, out, context)
        cut = self._cut(len(out), context)
        values = payload.view(out.dtype)
        _multiply(cut, values[: cut.first], values[cut.first :], out)

    def _sum(
        self, p: Array, out: Array, group: Communicator, state: dict[str, Array], context: CodecContext, factor: float
    ) -> None:
        check_finite(p, context)
        cut = self._cut(len(p), context)
        right = self._start(cut, p, context, state)
        first = _left(cut, p, right)
        group.allreduce(first)
        _right(cut, p, first, right)
        own = right.copy()
        group.allreduce(right)
        _multiply(cut, first, right, out)
        _lose(cut, p, first, own, p)

    def _cut(self, n: int, context: CodecContext) -> Cut:
        """Return the matrices whose factors are smaller than they are, and what lies between them."""
        found, rest, end, left, right = [], [], 0, 0, 0
        for start, rows, columns in context.matrices:
            rank = min(self.rank, rows, columns)
            if rank * (rows + columns) >= rows * columns:
                continue
            where = slice(start, start + rows * columns)
            lefts, rights = slice(left, left + rows * rank), slice(right, right + columns * rank)
            found.append(Factors(where, (rows, columns), lefts, rights, rank))
            rest.append(slice(end, start))
            end, left, right = where.stop, lefts.stop, rights.stop
        rest.append(slice(end, n))
        return Cut(tuple(found), tuple(rest), left, left + sum(part.stop - part.start for part in rest), right)

    def _start(self, cut: Cut, x: Array, context: CodecContext, state: dict[str, Array]) -> Array:
        """Return the right factors of the step before; at first random ones, the same on all ranks."""
        name = f"{PREFIX}factors {context.part}"
        kept = state.get(name)
        if kept is None or len(kept) != cut.right or kept.dtype != x.dtype:
            random = context.shared_random().standard_normal(cut.right).astype(x.dtype)
            kept = state[name] = namespace(x).asarray(random)
        return kept


def _matrix(x: Array, one: Factors) -> Array:
    return x[one.where].reshape(one.shape)


def _left(cut: Cut, x: Array, right: Array) -> Array:
    """Return each matrix times its right factor, and the rest."""
    first = namespace(x).empty(cut.first, x.dtype)
    for one in cut.factors:
        first[one.left].reshape(-1, one.rank)[:] = _matrix(x, one) @ right[one.right].reshape(-1, one.rank)
    end = cut.left
    for part in cut.rest:
        first[end : (end := end + part.stop - part.start)] = x[part]
    return first


def _right(cut: Cut, x: Array, first: Array, right: Array) -> None:
    """Make the left factors' columns orthonormal; write each matrix's product with them into the right factors."""
    xp = namespace(x)
    for one in cut.factors:
        left = first[one.left].reshape(-1, one.rank)
        left[:] = xp.linalg.qr(left)[0]
        right[one.right].reshape(-1, one.rank)[:] = _matrix(x, one).T @ left


def _multiply(cut: Cut, first: Array, right: Array, out: Array) -> None:
    """Write the products of the factors, and the rest."""
    for one in cut.factors:
        left = first[one.left].reshape(-1, one.rank)
        namespace(out).matmul(left, right[one.right].reshape(-1, one.rank).T, out=_matrix(out, one))
    end = cut.left
    for part in cut.rest:
        out[part] = first[end : (end := end + part.stop - part.start)]


def _lose(cut: Cut, x: Array, first: Array, right: Array, lost: Array) -> None:
    """Write into `lost` what the products of the factors lack of `x`, which may be `lost`."""
    xp = namespace(x)
    for one in cut.factors:
        product = first[one.left].reshape(-1, one.rank) @ right[one.right].reshape(-1, one.rank).T
        xp.subtract(_matrix(x, one), product, out=_matrix(lost, one))
    for part in cut.rest:
        lost[part] = 0
