"""The asynchronous loop: no steps in common; each rank at its own pace, with servers, with neighbours, or on one shared vector."""

from __future__ import annotations

from scaleml.runtime.checkpoints import Checkpoints
from scaleml.runtime.command_handler import CommandHandler
from scaleml.runtime.coordinator import AsynchronousCoordinator
from scaleml.runtime.parameter_server.server_copies import ServerCopies
from scaleml.runtime.queued_commands import QueuedCommands
from scaleml.runtime.recovery_points import RecoveryPoints
from scaleml.runtime.training_rank import TrainingRank


def train_asynchronously(
    rank: TrainingRank,
    coordinator: AsynchronousCoordinator,
    commands: CommandHandler | QueuedCommands,
    points: RecoveryPoints,
    copies: ServerCopies,
    checkpoints: Checkpoints,
) -> None:
    """Train until the run has had its rows, at this rank's own pace; then agree with the others.

    Recovery points come where the rule of the servers keeps all in step, copies of servers where not.
    """
    w, state, recorder = rank.w, rank.state, rank.recorder
    while not coordinator.done and not rank.early_stopping.converged:
        told = state.commands
        commands.apply_due()
        if rank.leaving:
            break
        if state.commands != told:
            points.expect()
        if state.step >= points.due:
            points.look()
        if recorder.since >= copies.due:
            copies.look()
        rank.take_step()
        coordinator.stepped(rank.gradients.last_rows)
        _catch_up(rank, coordinator, commands, checkpoints)
        while coordinator.held:  # called away from its waiting
            coordinator.wait(w)
            _catch_up(rank, coordinator, commands, checkpoints)
    _apply_earlier(rank, commands)
    checkpoints.leave()
    while not coordinator.leave(w):
        _catch_up(rank, coordinator, commands, checkpoints)
        commands.apply_due()
    _catch_up(rank, coordinator, commands, checkpoints)
    coordinator.collect(w, rank.group)


def _catch_up(
    rank: TrainingRank,
    coordinator: AsynchronousCoordinator,
    commands: CommandHandler | QueuedCommands,
    checkpoints: Checkpoints,
) -> None:
    """Take part in the evaluations that are due: all ranks that train do, on the same parameters; and in checkpoints, between these."""
    evaluation = rank.evaluation
    while evaluation.done < coordinator.evaluations_due:
        commands.apply_due(announced=rank.world.rank == 0)
        rank.note()
        agreed = evaluation.off_the_clock(lambda: coordinator.agreed(rank.w, rank.group))
        evaluation.at(agreed, rank.step)
        if rank.plan.stop is not None and not rank.early_stopping.converged:
            rank.decide(agreed, shared=False, epochs=1)
        evaluation.off_the_clock(checkpoints.look_apart)


def _apply_earlier(rank: TrainingRank, commands: CommandHandler | QueuedCommands) -> None:
    """Do what rank 0 announced before it said that what comes now is due: both are collective, and come in its order."""
    if rank.world.rank:
        commands.apply_due()
