"""Faults: what can be broken on purpose. Immutable data, applied for real in the rank's loop and on its links.

The same list goes to ``train(faults=...)`` and ``compare(faults=...)``; ``run.inject`` breaks something in mid-run. Steps are
those of the rank itself, which in asynchronous runs keeps its own pace; a server's are its updates. Where several faults of one
kind are at work on a rank (or link), the one given last counts: ``run.inject(Slow(1, factor=1))`` lifts an earlier ``Slow``.
"""

from scaleml.faults.base import Fault
from scaleml.faults.network import Bandwidth, CorruptFrame, DropLink, Latency
from scaleml.faults.plans import rotating
from scaleml.faults.rank import Crash, InjectedCrash, Kill, Pause, Slow, left_after_loss, renumbered

__all__ = [
    "Bandwidth",
    "CorruptFrame",
    "Crash",
    "DropLink",
    "Fault",
    "InjectedCrash",
    "Kill",
    "Latency",
    "Pause",
    "Slow",
    "left_after_loss",
    "renumbered",
    "rotating",
]
