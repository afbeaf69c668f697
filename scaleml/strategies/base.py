"""What a strategy is: one step on the parameters, the roles it needs and where it commits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from scaleml.arrays import Array
from scaleml.compression import Codec
from scaleml.representation import call_of
from scaleml.strategies.context import Context, ServerContext


@dataclass(frozen=True)
class Layout:
    """The roles of a run: ranks ``0 .. workers - 1`` train, the next ``servers`` ranks hold parameters."""

    workers: int
    servers: int = 0

    @property
    def size(self) -> int:
        """Number of ranks in all."""
        return self.workers + self.servers

    def is_server(self, rank: int) -> bool:
        """Whether this rank holds parameters rather than data."""
        return rank >= self.workers

    def beside(self, server: int) -> int:
        """Return the rank that trains on whose worker a server stands: the last one, then the one before it, and so on."""
        return self.workers - 1 - (server - self.workers) % self.workers

    def keeper(self, rank: int) -> int:
        """Return the rank, on another worker, that keeps a copy of what only this one has: the next one that trains.

        Examples
        --------
        >>> [Layout(3, servers=2).keeper(rank) for rank in range(5)]
        [1, 2, 0, 0, 2]
        """
        return ((self.beside(rank) if self.is_server(rank) else rank) + 1) % self.workers


class Strategy(ABC):
    """Base class of the strategies: a frozen dataclass of settings and a pure description of one step.

    A strategy keeps nothing on itself. ``w`` is the flat parameter vector of shape ``(P,)``, ``state`` the
    optimizer's arrays, ``ctx`` the only way to the data and to the other ranks.

    Attributes
    ----------
    replicated : bool
        Whether the optimizer's state is the same on every rank after a commit; otherwise it is private.
    synchronous : bool
        Whether all ranks take step ``k`` together (or, in local methods, commit together).
    adds_updates : bool
        Whether what ranks do by themselves adds up in one vector, as of a server; where it is averaged, an update of all is worth one
        of the whole batch at the same rate.
    shares_memory : bool
        Whether all ranks have one ``w``, in the memory of one host; ``ctx.shared`` then counts the updates.
    has_sparse_form : bool
        Whether it can do with what a batch touches: it takes a sparse gradient where that is chosen. A setting ``sparse``, if it
        has one, may choose.
    """

    replicated: ClassVar[bool] = True
    synchronous: ClassVar[bool] = True
    adds_updates: ClassVar[bool] = False
    shares_memory: ClassVar[bool] = False
    has_sparse_form: ClassVar[bool] = False

    def __repr__(self) -> str:
        """Return the call that makes it: the first setting, and those that are not at their default."""
        return call_of(self)

    def layout(self, workers: int) -> Layout:
        """Return the roles this strategy needs for ``workers`` ranks that train."""
        return Layout(workers)

    def resolve(self, nbytes: int, hosts: Sequence[int]) -> Strategy:
        """Return what is used for parameters of ``nbytes`` bytes on hosts with so many ranks each: itself, or with choices made."""
        return self

    def commits(self, step: int) -> bool:
        """Whether all ranks hold the same parameters after step ``step`` (counted from 0)."""
        return True

    def updates_a_batch(self, workers: int) -> int:
        """Return into how many updates of the parameters one batch goes: one, or one a rank that steps by itself."""
        return 1 if self.replicated else workers

    def parts_of_a_batch(self, workers: int) -> int:
        """Return into how many steps of the one model a batch goes: several only where ranks' updates add up."""
        return self.updates_a_batch(workers) if self.adds_updates else 1

    def sums_gradients(self, step: int) -> bool:
        """Whether step ``step`` applies the exact sum of all ranks' gradients at the same parameters: where their noise is measured.

        Elsewhere it is estimated from a rank's own, one step after the other.
        """
        return False

    def is_boundary(self, step: int, ends_epoch: bool) -> bool:
        """Whether commands and evaluations may come after step ``step``: where it commits, if nothing else is said.

        Elsewhere each rank has parameters of its own; what is evaluated, and what a stop leaves, is then their mean.
        """
        return self.commits(step)

    def command_step(self, step: int, epoch_end: int, size: int) -> int:
        """Return the first boundary's step whose messages have told all ``size`` ranks what rank 0 knew before ``step``."""
        while not self.commits(step):
            step += 1
        return step

    def begin(self, w: Array, state: dict[str, Array]) -> None:  # noqa: B027  most keep nothing
        """Add to ``state`` what this strategy keeps there; called where it takes over, with the same ``w`` on all ranks."""

    def end(self, state: dict[str, Array]) -> None:  # noqa: B027  most keep nothing
        """Take out of ``state`` what `begin` added; called before another strategy takes over."""

    @abstractmethod
    def step(self, w: Array, state: dict[str, Array], ctx: Context) -> None:
        """Take one step, in place."""


class ServerStrategy(Strategy):
    """Base class of the strategies whose `layout` has servers.

    Attributes
    ----------
    compression : Codec or None
        How gradients and changes travel; None for as they are.
    overlap : bool
        Whether a worker may have the answer to one push owing while it computes the next gradient.
    """

    replicated: ClassVar[bool] = False
    synchronous: ClassVar[bool] = False
    adds_updates: ClassVar[bool] = True
    compression: Codec | None = None
    overlap: bool = False

    @property
    @abstractmethod
    def ahead(self) -> float:
        """How many clocks a worker may be ahead of the slowest."""

    @property
    def answers_at_once(self) -> bool:
        """Whether `serve` applies each push by itself, answers its worker at once, and keeps nothing but ``w`` and ``state``'s arrays."""
        return False

    @abstractmethod
    def serve(self, w: Array, state: dict[str, Array], ctx: ServerContext) -> None:
        """On a server: take in one message of any worker, update this server's slice ``w`` in place, answer who may go on."""
