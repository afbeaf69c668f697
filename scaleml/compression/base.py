"""What a codec is: settings, pure methods between floats and bytes, and a way of summing over ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Final, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array, namespace
from scaleml.checks import check_number
from scaleml.comm.communicator import Communicator
from scaleml.compression.error_feedback import PREFIX, residual
from scaleml.representation import call_of


@dataclass(frozen=True)
class CodecContext:
    """What both ends know of a payload without its being sent.

    Parameters
    ----------
    seed, step, rank : int
        Of the run, of the step, and of who encodes: together they fix every random number.
    part : int
        Which part of the vector, where one rank encodes several in a step.
    matrices : tuple of (start, rows, columns)
        Where in the vector the model's weight matrices lie.

    Examples
    --------
    >>> [int(CodecContext(seed=3, step=1, rank=rank).random().integers(100)) for rank in (0, 1, 0)]
    [59, 33, 59]
    """

    seed: int = 0
    step: int = 0
    rank: int = 0
    part: int = 0
    matrices: tuple[tuple[int, int, int], ...] = ()

    def at(self, step: int, rank: int) -> CodecContext:
        """Return the context of another step and rank."""
        return replace(self, step=step, rank=rank)

    def within(self, start: int, stop: int, part: int) -> CodecContext:
        """Return the context of a slice of the vector: of each matrix, the whole rows that lie in it.

        Examples
        --------
        >>> CodecContext(matrices=((0, 6, 4), (28, 5, 2))).within(10, 32, part=1).matrices
        ((2, 3, 4), (18, 2, 2))
        """
        found = []
        for first, rows, columns in self.matrices:
            begin = max(0, -(-(start - first) // columns))
            end = min(rows, (stop - first) // columns)
            if begin < end:
                found.append((first + begin * columns - start, end - begin, columns))
        return replace(self, part=part, matrices=tuple(found))

    def random(self) -> np.random.Generator:
        """Return random numbers of this rank, step and part."""
        return np.random.Generator(np.random.SFC64([self.seed, self.step, self.part, self.rank + 1]))

    def shared_random(self) -> np.random.Generator:
        """Return random numbers of this step, the same for all ranks."""
        return np.random.Generator(np.random.SFC64([self.seed, self.step]))


NO_CONTEXT: Final = CodecContext()


class Codec(ABC):
    """Base class of the codecs: a frozen dataclass of settings.

    Codecs lose something, and feed it back (Karimireddy et al., Error feedback fixes SignSGD, ICML 2019,
    arXiv:1901.09847): what a rank's payloads have lost so far is added to what it sends next::

        p       <- g + residual
        payload <- encode(p)
        residual <- p - decode(payload)

    so that all that was ever decoded and the residual add up to all that was ever to be sent. The residual is an
    array of the strategy's state, private to its rank.

    Attributes
    ----------
    code : int
        Stands in the header of every frame that carries a payload of this codec.
    """

    code: ClassVar[int]

    def __repr__(self) -> str:
        """Return the call that makes it: the first setting, and those that are not at their default."""
        return call_of(self)

    @abstractmethod
    def nbytes(self, n: int, dtype: DTypeLike, context: CodecContext = NO_CONTEXT) -> int:
        """Return the length of the payload of `n` floats of `dtype`: it depends on nothing else."""

    @abstractmethod
    def encode(
        self,
        x: Array,
        context: CodecContext = NO_CONTEXT,
        lost: Array | None = None,
        state: dict[str, Array] | None = None,
    ) -> Array:
        """Return `x` as a payload.

        Parameters
        ----------
        x : float array of shape (n,)
        context : CodecContext
            Who encodes, and when.
        lost : array of shape (n,), optional
            Receives what the payload does not say: ``x`` minus what `decode` will give. It may be `x` itself.
        state : dict of arrays, optional
            What the codec itself keeps from step to step, private to its rank.

        Returns
        -------
        uint8 array of shape (nbytes,)

        Raises
        ------
        ValueError
            If a value of `x` is not finite.
        """

    @abstractmethod
    def decode(self, payload: Array, out: Array, context: CodecContext = NO_CONTEXT) -> None:
        """Write what `payload` says into `out`, (n,); `context` is the sender's.

        Raises
        ------
        ValueError
            If it is no payload of so many items.
        """

    @final
    def _check(self, payload: Array, out: Array, context: CodecContext) -> None:
        """Raise ValueError unless `payload` has the length of one that can be decoded into `out`."""
        due = self.nbytes(len(out), out.dtype, context)
        if payload.dtype != np.uint8 or payload.shape != (due,):
            raise ValueError(
                f"{self} cannot decode a {payload.dtype} array of shape {payload.shape} into {len(out)} {out.dtype} items: "
                f"their payload is uint8 of shape ({due},)"
            )

    @abstractmethod
    def _sum(
        self, p: Array, out: Array, group: Communicator, state: dict[str, Array], context: CodecContext, factor: float
    ) -> None:
        """Write the sum of all ranks' `p` into `out`, the same bits on every rank; into `p` what this rank's lost.

        `factor` turns what was kept from the step before into units of this one.
        """

    @final
    def allreduce(
        self, g: Array, weight: float, group: Communicator, state: dict[str, Array], context: CodecContext
    ) -> None:
        """Sum `g` over the ranks, in place, to within what the codec loses; the same bits on every rank.

        Parameters
        ----------
        g : array of shape (n,)
            A sum over this rank's part of the batch.
        weight : float
            That of the whole batch, the same on every rank: sums are divided by it in the end. What a step lost is a
            share of its mean, and must not count for more in a step with a short batch.
        group : Communicator
        state : dict of arrays
            Where residuals live.
        context : CodecContext
            With the rank's number in `group`.
        """
        if not weight:
            g[:] = 0
            return
        now, meter = group.clock.now, group.meter
        begin = now()
        inside = meter.comm + meter.wait
        before = float(state.get(PREFIX + "weight", (weight,))[0])
        state[PREFIX + "weight"] = np.array([weight])
        factor = weight / before
        p = residual(state, f"residual {context.part}", g)
        if factor != 1:
            p *= factor
        p += g
        self._sum(p, g, group, state, context, factor)
        # Coding is part of what communication costs; what the group itself did has been counted.
        meter.comm += now() - begin - (meter.comm + meter.wait - inside)

    @final
    def encode_next(self, x: Array, state: dict[str, Array], context: CodecContext) -> Array:
        """Return the payload of `x`, (n,), and of what earlier payloads have lost; keep what this one loses.

        Vectors that share a `state` are told apart by the context's `part`.
        """
        p = residual(state, f"residual {context.part}", x)
        p += x
        return self.encode(p, context, p, state)


def check_codec(codec: object) -> None:
    """Raise ValueError unless `codec` is None or a codec."""
    if codec is not None and not isinstance(codec, Codec):
        raise ValueError(
            f"compression={codec!r}: must be None or a codec of scaleml.compression, with its brackets: FP16(), Int8(), "
            "OneBit(), TopK(0.01), RandomK(0.01) or PowerSGD(2)"
        )


def check_ratio(ratio: object) -> None:
    """Raise ValueError unless `ratio` is a share of the items."""
    rule = "a number above 0 and at most 1, the share of the items that is sent; 0.01 sends one in a hundred"
    check_number("ratio", ratio, 0, 1, open_low=True, rule=rule)


def check_finite(x: Array, context: CodecContext) -> None:
    """Raise ValueError unless all of `x` is finite: one bad item would spoil its whole chunk, and every later step."""
    xp = namespace(x)
    finite = xp.isfinite(x)
    if not bool(finite.all()):
        item = int(xp.flatnonzero(~finite)[0])
        raise ValueError(
            f"rank {context.rank}, step {context.step}: item {item} of the gradient is {float(x[item])}, and only finite "
            "numbers can be compressed. Divide the learning rate by 10, scale X, or set clip_norm"
        )


def kept_items(ratio: float, n: int) -> int:
    """Return how many of `n` items a share of them is: one at least, where there are any."""
    return min(n, max(1, round(ratio * n)))


def tables(x: Array, width: int, most: int) -> Iterator[tuple[int, Array]]:
    """Yield `x` (n,) in tables of `width` columns and at most `most` rows, views, the last with the items left over.

    Yields
    ------
    (int, array of shape (rows, width))
        The number of the table's first row, and the table.
    """
    rows = len(x) // width
    whole = x[: rows * width].reshape(rows, width)
    for start in range(0, rows, most):
        yield start, whole[start : start + most]
    if rows * width < len(x):
        yield rows, x[rows * width :].reshape(1, -1)
