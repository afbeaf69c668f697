"""The training loop of a rank: warm-up, first evaluation, steps, last evaluation, outcome. It knows its data and ranks, nothing of Dask."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import final
from weakref import WeakMethod

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.data.batches import Batches
from scaleml.data.piece import Arrays
from scaleml.data.stream import Stream
from scaleml.devices import host_copy
from scaleml.models.buffers import Buffers
from scaleml.runtime.asynchronous_loop import train_asynchronously
from scaleml.runtime.best_parameters import BestParameters
from scaleml.runtime.checkpoints import Checkpoints
from scaleml.runtime.command_handler import CommandHandler
from scaleml.runtime.commands import CommandQueue
from scaleml.runtime.handover import hand_over
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.parameter_server.server_copies import ServerCopies
from scaleml.runtime.parameter_server.shared_server import TAKEN
from scaleml.runtime.plan import Plan
from scaleml.runtime.queued_commands import QueuedCommands
from scaleml.runtime.rank_change import Bequest, samples_of, take_over
from scaleml.runtime.recovery_points import RecoveryPoints
from scaleml.runtime.reporting import Report
from scaleml.runtime.standing import Standing
from scaleml.runtime.synchronous_loop import train_synchronously
from scaleml.runtime.train_state import StoppingState, TrainState
from scaleml.runtime.training_rank import TrainingRank
from scaleml.telemetry.recorder import Recorder


@final
class TrainingLoop:
    """One training rank, from its first step to its outcome; the parameters are those of `TrainingRank`.

    Parameters
    ----------
    queue : CommandQueue
        Where commands arrive, if this is rank 0.
    bequest : Bequest or None
        What it brings of former ranks, where others are left out.
    """

    def __init__(
        self,
        plan: Plan,
        world: Communicator,
        batches: Batches,
        held_out: Arrays | Stream | None,
        queue: CommandQueue,
        report: Report,
        recorder: Recorder,
        bequest: Bequest | None = None,
    ) -> None:
        self.rank = TrainingRank(plan, world, batches, held_out, report, recorder)
        if plan.goes_on and plan.start is not None:
            start = plan.start
            if plan.taken:  # each goes on where it was itself
                start = replace(start, consumed=batches.place(plan.began, plan.taken[world.rank]))
            self.rank.restore(start)  # also what is private
        counted = self.rank.state.counted if plan.resumed else ()
        self._bases = plan.bases or tuple(samples_of(counted, each) for each in range(plan.layout.workers))
        if plan.clock is not None:
            self.rank.state.clock = plan.clock
        if bequest is not None:
            take_over(self.rank, bequest)
        self.points = RecoveryPoints(self.rank, wanted=plan.keeps_points)
        self.checkpoints = Checkpoints(self.rank, batches)
        self.copies = ServerCopies(self.rank)
        self.commands: CommandHandler | QueuedCommands = CommandHandler(self.rank, queue)
        if self.rank.device.uses_nccl and self.rank.coordinator is None:
            self.commands = QueuedCommands(self.rank, self.commands)

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self.rank.step

    def tell_epochs(self, told: Callable[[TrainingRank], None]) -> None:
        """Have ``told`` called with the rank when an epoch of a run with a stop rule is over."""
        self.rank.on_epoch = told

    def last_good(self) -> Array | None:
        """Return what this rank holds of the parameters of the last good step."""
        return self.rank.last_good()

    def last_good_buffers(self) -> Buffers | None:
        """Return the model's buffers of the last good step, where it has some."""
        evaluation = self.rank.evaluation
        if evaluation.buffers.are_good:
            return evaluation.buffers.now()
        return evaluation.kept_buffers or self.rank.state.buffers  # those of the start, before anything was evaluated

    def best(self) -> BestParameters:
        """Return what was best so far, of what this rank holds."""
        return self.rank.state.best.on_host()

    def run(self) -> Outcome:
        """Train to the end, or until stopped."""
        # What overflows is found by its loss and ends in an error that says so: NumPy need not warn as well.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            try:
                self._begin()
                self._train()
                self._end()
                outcome = self._outcome()
                self.rank.device.part()
                return outcome
            finally:
                self.checkpoints.close()
                self.rank.device.release()

    def _begin(self) -> None:
        rank = self.rank
        # First calls of BLAS and the first touch of memory are no part of training.
        rank.gradients.count = min(rank.batch_size, rank.plan.rows_at_once)
        rank.touched_gradient(rank.w)
        rank.gradients.begin(WeakMethod(rank.mark))  # nor are rows that were left out there counted
        rank.evaluation.buffers.follow()  # nor is what a model has seen in them
        rank.recorder.compute = 0.0
        self.checkpoints.begin()
        rank.world.barrier()
        rank.recorder.begin(rank.world.clock.now(), rank.state.clock)
        if rank.plan.resumed and not rank.plan.goes_on and rank.world.rank == 0:
            change = rank.plan.change
            rank.mark(change, "strategy" if change.startswith("strategy=") else "setting")
        if rank.plan.goes_on:
            rank.evaluation.go_on(rank.plan.evaluated)
            self._agree()
            self._tell_past_epochs()
            self.points.begin()  # first: who has entered can be recovered from
        rank.report("entered", topology=None if rank.form.sparse else getattr(rank.strategy, "topology", None))
        if not rank.plan.goes_on:  # else it was there when the point was taken
            rank.evaluation.at(rank.w, rank.step)
            self.points.begin()
        self.copies.begin()

    def _agree(self) -> None:
        """Agree on how far ranks are that keep their own pace; nobody has to be where another one is."""
        rank = self.rank
        if rank.coordinator is None:
            return
        if rank.has_servers:
            rank.servers.begin_again(rank.state.params)
        if not rank.plan.bases:  # of a checkpoint
            mine = np.array([rank.state.samples], np.float64)
            self._bases = tuple(rank.group.allgather(mine)[:, 0].astype(int).tolist())
        looked = rank.plan.looked
        if rank.plan.taken:
            seen = rank.state.stopping
            looked = looked if rank.plan.stop is None else min(looked, len(seen.losses))
            told = json.dumps([looked, rank.state.evaluations, asdict(seen)]).encode()
            looked, rank.state.evaluations, facts = json.loads(rank.group.allgather_bytes(told)[0])
            rank.state.stopping = StoppingState(**facts)
        rank.evaluation.done = rank.coordinator.evaluations_due = looked

    def _tell_past_epochs(self) -> None:
        """Tell of the epochs that are over: the first rank that was lost may not have come to it."""
        seen = self.rank.state.stopping
        if self.rank.world.rank == 0 and self.rank.on_epoch is not None:
            for number, loss in enumerate(seen.losses, 1):
                score = seen.scores[number - 1] if len(seen.scores) >= number else np.nan
                self.rank.recorder.epoch_over(number, loss, score, False)

    def left_standing(self) -> tuple[TrainState, Standing]:
        """Return how this rank stands, which keeps its own pace and has lost others."""
        rank = self.rank
        state, number = rank.snapshot(), rank.world.rank
        if rank.plan.strategy.shares_memory:
            state.params = rank.state.params  # as it lies there: others may still write
        state.commands = self.commands.done
        assert rank.coordinator is not None
        taken = rank.coordinator.taken() or [0.0] * rank.group.size
        taken[number] = max(taken[number], float(state.samples - self._bases[number]))
        slices = rank.servers.slices_left() if rank.has_servers else {}
        for server, copy in self.copies.kept.items():
            slices[server] = TrainState.from_bytes(copy)
            taken = [max(rows) for rows in zip(taken, slices[server].arrays[TAKEN].tolist(), strict=True)]
        return state, Standing(
            began=rank.plan.began,
            taken=tuple(taken),
            bases=self._bases,
            step=state.step,
            commands=state.commands,
            slices=slices,
            evaluations=tuple(rank.evaluation.recent),
        )

    def _train(self) -> None:
        rank = self.rank
        if rank.coordinator is None:
            train_synchronously(rank, self.commands, self.points, self.checkpoints)
        else:
            train_asynchronously(rank, rank.coordinator, self.commands, self.points, self.copies, self.checkpoints)
        rank.note()

    def _end(self) -> None:
        """Evaluate what the run ends with, unless others go on or that was done."""
        rank, together = self.rank, self.rank.coordinator is None
        rank.form.end()
        if rank.switching or (not together and self.checkpoints.any_switching()):
            return
        if not (rank.early_stopping.converged and together):
            rank.evaluation.at(rank.w, rank.step)
            if together and rank.early_stopping.is_due:
                rank.decide(rank.w, shared=rank.strategy.replicated)
            elif not together and rank.plan.stop is not None and self._lacks_an_epoch:
                rank.decide(rank.w, shared=False, epochs=1)
        if not rank.stopping or not together:  # else it was written where it was stopped
            rank.evaluation.passed(rank.state.consumed)  # for whoever trains on
            self.checkpoints.end(is_over=not rank.stopping)

    @property
    def _lacks_an_epoch(self) -> bool:
        """Whether the last epoch of an asynchronous run has not been looked at: its evaluation is the one at the end."""
        ended = self.rank.stopping or self.rank.early_stopping.converged
        return not ended and len(self.rank.state.stopping.losses) < self.rank.plan.epochs

    def _outcome(self) -> Outcome:
        """Return how the rank ended; collective where others go on, or ranks keep averages of their own."""
        rank, seen, best = self.rank, self.rank.state.stopping, self.rank.state.best.on_host()
        rank.evaluation.buffers.agree()
        buffers = rank.evaluation.buffers.now()
        # Servers hand over what their optimizer gives out.
        params = np.array(rank.w) if rank.has_servers else self._result()
        if rank.plan.stop is not None and rank.plan.stop.keep_best and best.params is not None:
            params, buffers = best.params, best.buffers
        epochs = rank.epoch
        if rank.coordinator is not None:
            epochs = len(seen.losses) if seen.converged else rank.plan.epochs
        end = rank.snapshot() if rank.plan.keep_end else None
        handed = hand_over(rank)
        return Outcome(
            "stopped" if rank.stopping else "finished" if handed is None else "switched",
            rank.step,
            params=params,
            best=best.beside(params),
            epochs=epochs,
            losses=tuple(seen.losses),
            scores=tuple(seen.scores),
            widest=None if rank.coordinator is None else rank.coordinator.widest,
            state=handed or end,
            buffers=buffers,
        )

    def _result(self) -> Array:
        """Return the parameters to give out; averages that each rank took of its own way are averaged over the ranks."""
        rank, state = self.rank, self.rank.state
        assert state.optimizer is not None
        result = host_copy(state.optimizer.result(rank.w, state.arrays, state.updates))
        if "average" in state.arrays and not rank.strategy.replicated and rank.group.size > 1:
            rank.mean(result)
        return result
