"""The train state: everything that a rank needs to go on. One mechanism for all that goes on from something.

Warm starts and ``partial_fit`` start from one, a switch of strategy hands one over, an outcome leaves one; recovery, a change of the
number of workers and checkpoints read and write the same.

Invariants:

- It is live: the loop, the optimizer step, early stopping and the handler of commands keep what they know here and nowhere else.
- ``restore(snapshot())`` changes no bit, and what is restored after anything else has happened goes on with the bits of the moment
  of the snapshot: also its residuals, its place in the data and its random streams.
- ``params`` and each array of the optimizer's slots have the length of the rank's slice ``[start, stop)`` of the vector.
- `replicated` names what all ranks that train have alike at a boundary; all else is private: no other rank can stand in for it.
- ``from_bytes(to_bytes())`` is equal to the bit; nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np

from scaleml.arrays import Array, namespace, to_numpy
from scaleml.compression.error_feedback import PREFIX
from scaleml.devices import fill, host_copy
from scaleml.faults import Fault
from scaleml.models.buffers import Buffers
from scaleml.optim import Optimizer
from scaleml.runtime.best_parameters import BestParameters
from scaleml.runtime.serialization import Description, describe, fault_from, optimizer_from

Arrays = dict[str, Array]


@dataclass
class StoppingState:
    """What early stopping has seen.

    Parameters
    ----------
    best_value : float
        The best of what is monitored, smaller being better.
    stale : int
        Epochs in a row without improvement.
    pending : int
        Epochs that are over and wait for their decision.
    converged : bool
        Whether the rule has ended the run.
    losses, scores : list of float
        One an epoch.
    """

    best_value: float = np.inf
    stale: int = 0
    pending: int = 0
    converged: bool = False
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


@dataclass
class TrainState:
    """One rank's state; made with nothing but parameters it is a warm start.

    Parameters
    ----------
    params : (stop - start,) array
        What this rank holds of the vector.
    arrays : dict of arrays
        The optimizer's slots by their names, and what the strategy (``outer.*``) and its codec (``compression.*``) keep.
    start : int
        Where in the vector ``params`` begins.
    updates : int
        Updates as the optimizer counts them.
    rows : float
        Rows of all ranks that have gone into updates.
    step : int
        Steps of this rank.
    consumed, samples : int
        Rows of data that all ranks together, and this rank, have consumed.
    counted : tuple of int
        Those that ranks of each number had consumed when there last was another number of ranks.
    next_evaluation : float
        Rows that all ranks have consumed when the next held-out evaluation is due.
    evaluations : int
        Held-out evaluations so far, of this run, the one before the first step included.
    epoch_loss, epoch_weight : float
        Sums over the epoch under way.
    clock : float
        The training clock, in seconds.
    committed : bool
        Whether all ranks that train hold the same parameters.
    optimizer, batch_size, faults, commands
        The settings in force, and how many commands brought them about; None and () for those of the plan.
    stopping : StoppingState
    best : BestParameters
        What was best so far.
    random : dict of arrays
        Random streams that are no function of seed and step.
    buffers : Buffers or None
        The model's at a snapshot, where it has some: between two agreements each rank has its own.
    replicated : bool
        Whether the optimizer's slots are the same on all ranks that train.
    """

    params: Array
    arrays: Arrays = field(default_factory=dict)
    start: int = 0
    updates: int = 0
    rows: float = 0.0
    step: int = 0
    consumed: int = 0
    samples: int = 0
    counted: tuple[int, ...] = ()
    next_evaluation: float = np.inf
    evaluations: int = 0
    epoch_loss: float = 0.0
    epoch_weight: float = 0.0
    clock: float = 0.0
    committed: bool = True
    optimizer: Optimizer | None = None
    batch_size: int | None = None
    faults: tuple[Fault, ...] = ()
    commands: int = 0
    stopping: StoppingState = field(default_factory=StoppingState)
    best: BestParameters = field(default_factory=BestParameters)
    random: Arrays = field(default_factory=dict)
    buffers: Buffers | None = None
    replicated: bool = True

    @property
    def stop(self) -> int:
        """Where in the vector ``params`` ends."""
        return self.start + len(self.params)

    @property
    def private(self) -> frozenset[str]:
        """Names of what no other rank has: arrays by their names, ``buffers``, ``params`` between two commits."""
        alike = () if not self.replicated else (name for name in self.arrays if not name.startswith(PREFIX))
        outer = (name for name in self.arrays if name.startswith("outer."))
        names = {*self.arrays} - {*alike, *outer} | (set() if self.buffers is None else {"buffers"})
        return frozenset(names if self.committed else names | {"params"})

    def warm_start(self) -> TrainState:
        """Return what another run may start from: parameters and buffers, the optimizer's slots and its counts."""
        return TrainState(self.params, self.arrays, updates=self.updates, rows=self.rows, buffers=self.buffers)

    def snapshot(self) -> Self:
        """Return a copy that nothing changes any more, in the processor's memory."""
        stopping = replace(self.stopping, losses=[*self.stopping.losses], scores=[*self.stopping.scores])
        return replace(
            self,
            params=host_copy(self.params),
            arrays=_copies(self.arrays),
            random=_copies(self.random),
            stopping=stopping,
            best=self.best.on_host(),  # its parameters are written to by nobody
        )

    def restore(self, state: TrainState) -> None:
        """Go back to a snapshot of this rank, in place: arrays that lie in shared memory stay where they are."""
        assert (state.start, state.stop) == (self.start, self.stop), "a snapshot of another slice"
        copy = state.snapshot()
        fill(self.params, copy.params)
        for name in self.arrays.keys() - copy.arrays.keys():
            del self.arrays[name]
        for name, array in copy.arrays.items():
            self._put(name, array)
        for name in _PLAIN:
            setattr(self, name, getattr(copy, name))
        self.stopping, self.best, self.random, self.buffers = copy.stopping, copy.best, copy.random, copy.buffers

    def resume(self, state: TrainState) -> None:
        """Go on from another rank's state, or from a warm start, in place: this rank's slice of it, and the arrays known here.

        What the other's strategy kept and this one's does not is left behind; counters and settings are taken over, the place
        in the vector is not.
        """
        own = slice(self.start - state.start, self.stop - state.start)
        assert own.start >= 0 and own.stop <= len(state.params), "a state that lacks a part of this rank's slice"
        whole = len(state.params)
        fill(self.params, state.params[own])
        for name, array in state.arrays.items():
            if name == "schedule" and name in self.arrays and self.arrays[name].shape != array.shape:
                continue  # of another kind of schedule
            if name in self.arrays:
                self._put(name, host_copy(array[own] if len(array) == whole and name not in _ON_HOST else array))
        for name in _PLAIN:
            if name not in ("start", "replicated", "committed"):
                setattr(self, name, getattr(state, name))
        copy = state.snapshot()
        self.stopping, self.best, self.random = copy.stopping, copy.best.part(own), copy.random
        self.buffers = copy.buffers

    def _put(self, name: str, array: Array) -> None:
        mine = self.arrays.get(name)
        if mine is not None and mine.shape == array.shape and mine.dtype == array.dtype:
            fill(mine, array)
        else:
            self.arrays[name] = array if name in _ON_HOST else namespace(self.params).asarray(array)

    @classmethod
    def merge(cls, parts: Sequence[TrainState]) -> TrainState:
        """Return the state of a whole vector from those of ranks that own a slice each; counters are the furthest.

        Raises
        ------
        ValueError
            Where the slices do not follow each other.
        """
        parts = sorted(parts, key=lambda part: part.start)
        first = parts[0]
        for before, after in pairwise(parts):
            if before.stop != after.start:
                raise ValueError(
                    f"parameters {before.stop} to {after.start} are in none of the states, or in two of them"
                )
        arrays = {
            name: array if name == "schedule" else np.concatenate([part.arrays[name] for part in parts])
            for name, array in first.arrays.items()
        }
        return replace(
            first.snapshot(),
            params=np.concatenate([part.params for part in parts]),
            arrays=arrays,
            best=_merged([part.best for part in parts]),
            updates=max(part.updates for part in parts),
            rows=max(part.rows for part in parts),
            step=max(part.step for part in parts),
        )

    def to_bytes(self) -> bytes:
        """Return the state as a safetensors file, its plain values as JSON in the header.

        Raises
        ------
        ValueError
            For an optimizer or a fault of a class that is not this package's.
        """
        from safetensors.numpy import save

        tensors = {"params": self.params}
        tensors |= {f"arrays/{name}": array for name, array in self.arrays.items()}
        tensors |= {f"random/{name}": array for name, array in self.random.items()}
        if self.best.params is not None:
            tensors["best"] = self.best.params
        for name, buffers in (("buffers", self.buffers), ("best buffers", self.best.buffers)):
            if buffers is not None:
                tensors |= {f"{name}/values": buffers.values, f"{name}/counts": buffers.counts}
        plain = {name: getattr(self, name) for name in _PLAIN if name not in ("optimizer", "faults")}
        plain["optimizer"] = None if self.optimizer is None else describe(self.optimizer)
        plain["faults"] = [describe(fault) for fault in self.faults]
        plain["stopping"] = {one.name: getattr(self.stopping, one.name) for one in fields(StoppingState)}
        plain["best"] = [self.best.value, self.best.evaluation]
        tensors = {name: np.ascontiguousarray(to_numpy(array)) for name, array in tensors.items()}
        return bytes(save(tensors, {"state": json.dumps(plain)}))

    @classmethod
    def from_bytes(cls, data: bytes) -> TrainState:
        """Read a state back."""
        from safetensors.numpy import load

        length = int.from_bytes(data[:8], "little")
        plain: dict[str, Any] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["state"])
        tensors = {name: np.array(array) for name, array in load(data).items()}
        optimizer: Description | None = plain.pop("optimizer")
        stopping = StoppingState(**plain.pop("stopping"))
        value, number = plain.pop("best")
        best = BestParameters(value, number, tensors.get("best"), _buffers_in(tensors, "best buffers"))
        return cls(
            params=tensors["params"],
            arrays={
                name.removeprefix("arrays/"): array for name, array in tensors.items() if name.startswith("arrays/")
            },
            random={
                name.removeprefix("random/"): array for name, array in tensors.items() if name.startswith("random/")
            },
            stopping=stopping,
            best=best,
            buffers=_buffers_in(tensors, "buffers"),
            optimizer=None if optimizer is None else optimizer_from(optimizer),
            faults=tuple(fault_from(fault) for fault in plain.pop("faults")),
            counted=tuple(plain.pop("counted")),
            **plain,
        )


_ARRAYS: Final = ("params", "arrays", "random", "stopping", "best", "buffers")
_ON_HOST: Final = frozenset({"schedule", "search", "weight_decay", "outer.updates", "compression.weight"})
"""Arrays of some numbers by which a rank decides: they lie in the processor's memory, wherever the parameters do."""
_PLAIN: Final = tuple(one.name for one in fields(TrainState) if one.name not in _ARRAYS)


def _merged(parts: Sequence[BestParameters]) -> BestParameters:
    """Return the best of a whole vector from that of slices, which were evaluated together; unknown where one lacks it."""
    slices = [part.params for part in parts if part.params is not None]
    if len(slices) < len(parts) or len({part.evaluation for part in parts}) > 1:
        return BestParameters()
    return replace(parts[0], params=np.concatenate(slices))


def _copies(arrays: Arrays) -> Arrays:
    return {name: host_copy(array) for name, array in arrays.items()}


def _buffers_in(tensors: Arrays, name: str) -> Buffers | None:
    return Buffers(tensors[f"{name}/values"], tensors[f"{name}/counts"]) if f"{name}/values" in tensors else None
