"""What befalls a run: a table of strategies, of blows and of what goes on beside, dealt by a seed so that all of it comes up."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import TypeVar

from scaleml.compression import PowerSGD, TopK
from scaleml.faults import Fault, Kill, Slow
from scaleml.optim import SGD
from scaleml.strategies import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial, Strategy

SYNCHRONOUS: tuple[Strategy, ...] = (
    Serial(),
    AllReduce(),
    AllReduce(compression=TopK(0.25)),
    AllReduce(compression=PowerSGD(2)),
    AllReduce(topology="ring"),
    AllReduce(overlap=True),
    LocalSGD(3),
    LocalSGD(3, outer=SGD(0.7, momentum=0.9, nesterov=True)),
    Gossip(),
    Gossip(topology="random"),
)
ASYNCHRONOUS: tuple[Strategy, ...] = (
    ParameterServer(),
    ParameterServer(servers=2),
    ParameterServer(overlap=True),
    ParameterServer("bsp"),
    ParameterServer("ssp", staleness=2),
    Hogwild(),
    Gossip(asynchronous=True),
)

ROWS, BATCH, EPOCHS, RANKS = 480, 24, 6, 3
LAST = ROWS // BATCH * EPOCHS - 1
"""The last step of a run."""
_MIDDLE = (2, LAST - 1)
_EARLY = (2, LAST // 2)  # from outside a blow comes later than it was meant to

STEPS = {
    "at a step": (_MIDDLE,),
    "first step": ((0, 1),),
    "last step": ((LAST - 1, LAST),),
    "two at once": (_MIDDLE,),
    "again": (_MIDDLE, (1, 5)),  # so many steps later
    "from outside": (_EARLY,),
    "two from outside": (_EARLY,),
    "while recovering": (_MIDDLE,),
    "stopped": (_EARLY,),
}
"""The kinds of blows, each with the steps that it may come at."""
BESIDE = ("nothing", "pause", "rate", "early stopping", "nothing")

T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """One run and what befalls it.

    Parameters
    ----------
    number : int
        Which one of the seed's.
    strategy : Strategy
    blow : str
        One of `STEPS`.
    ranks : tuple of int
        Whom it strikes; the second is struck with the first, or after it.
    steps : tuple of int
        When.
    beside : str
        What else the run is told, one of `BESIDE`.
    command : int
        At which step it is told that.
    often : bool
        Whether recovery points are taken at each boundary: else short runs mostly begin again.
    on_lost : str
        Whether lost ranks are replaced, or others go on without them.
    """

    number: int
    strategy: Strategy
    blow: str
    ranks: tuple[int, ...]
    steps: tuple[int, ...]
    beside: str
    command: int
    often: bool
    on_lost: str = "replace"

    def __str__(self) -> str:
        ranks, steps = ("+".join(map(str, each)) for each in (self.ranks, self.steps))
        return f"{self.number:03d}: {self.on_lost} after {self.blow}, rank {ranks}, step {steps}, {self.strategy}, beside {self.beside}"

    @property
    def is_stop(self) -> bool:
        """Whether the process is stopped, not killed."""
        return self.blow == "stopped"

    @property
    def is_exact(self) -> bool:
        """Whether the run is to end with the bits of one that nobody disturbed."""
        return self.on_lost == "replace" and self.strategy in (*SYNCHRONOUS, ParameterServer("bsp"))

    @property
    def faults(self) -> list[Fault]:
        """What the run is started with: steps slow enough for blows from outside, and those from within."""
        slow: list[Fault] = (
            [Slow(self.ranks[0], 30)] if self.blow in ("from outside", "two from outside", "stopped") else []
        )
        if slow:
            return slow
        if self.blow == "again":
            first, later = self.steps
            steps: Sequence[int] = (first, min(LAST, first + later))
        else:
            steps = self.steps * 2
        ranks = self.ranks[:1] if self.blow == "while recovering" else self.ranks
        return [Kill(rank, step, allow_kill=True) for rank, step in zip(ranks, steps, strict=False)]


def draws(seed: int) -> Iterator[Draw]:
    """Deal draws without end, the same for the same seed."""
    chance = random.Random(seed)
    blows, beside = _dealt(chance, tuple(STEPS)), _dealt(chance, BESIDE)
    strategies = _dealt(chance, SYNCHRONOUS + ASYNCHRONOUS)
    for number in count():
        drawn = Draw(
            number, next(strategies), next(blows), (), (), next(beside), chance.randint(*_EARLY), chance.random() < 0.7
        )
        yield drawn_again(drawn, chance)


def drawn_again(draw: Draw, chance: random.Random) -> Draw:
    """Return the draw with other ranks and steps."""
    steps = tuple(chance.randint(*span) for span in STEPS[draw.blow])
    size = draw.strategy.layout(RANKS).size
    several = draw.blow in ("two at once", "two from outside", "again", "while recovering")
    ranks = chance.sample(range(size), min(size, 2 if several else 1))
    if chance.random() < 0.2:  # commands go to the first rank, evaluations come from it
        ranks = [0, *(rank for rank in ranks[1:] if rank)]
    if several and len(ranks) == 1 and draw.blow in ("again", "while recovering"):
        ranks *= 2  # the one that has taken its place
    if draw.strategy.layout(RANKS).workers == 1:
        ranks = [0 for _ in ranks]
    return replace(draw, ranks=tuple(ranks), steps=steps)


def shrinking(seed: int) -> Iterator[Draw]:
    """Deal draws under strategies of several ranks, of which others are to go on without the lost ones."""
    for draw in draws(seed):
        if draw.strategy.layout(RANKS).workers > 1:
            yield replace(draw, on_lost="shrink")


def quick(seed: int, number: int) -> list[Draw]:
    """Return the first draws that take about a second: without a blow that is noticed by its silence."""
    return list(islice((draw for draw in draws(seed) if not draw.is_stop), number))


def _dealt(chance: random.Random, cards: Sequence[T]) -> Iterator[T]:
    while True:
        yield from chance.sample(cards, len(cards))
