"""The synchronous loop: all ranks take step k together, or at least commit together."""

from __future__ import annotations

from scaleml.runtime.checkpoints import Checkpoints
from scaleml.runtime.command_handler import CommandHandler
from scaleml.runtime.queued_commands import QueuedCommands
from scaleml.runtime.recovery_points import RecoveryPoints
from scaleml.runtime.training_rank import TrainingRank


def train_synchronously(
    rank: TrainingRank, commands: CommandHandler | QueuedCommands, points: RecoveryPoints, checkpoints: Checkpoints
) -> None:
    """Train until the run has had its epochs, has converged, or was told to end.

    Commands, evaluations, recovery points and checkpoints come at boundaries alone: where the strategy commits, or allows it.
    """
    state, strategy_step, epochs = rank.state, rank.take_step, rank.plan.epochs
    boundary = True
    while rank.epoch < epochs:
        if boundary:
            told = state.commands
            commands.apply_due()
            if rank.leaving:
                if rank.stopping:  # here, for what follows is what the run ends with
                    checkpoints.end(is_over=False)
                break
            if state.commands != told:
                points.expect()
            due = state.consumed >= rank.evaluation.due_at or rank.early_stopping.is_due
            if due and _look_at_progress(rank):
                break
            if state.step >= points.due:
                points.look()
            if state.consumed >= checkpoints.due:
                checkpoints.look()
        else:
            commands.announce_new()
        epoch = rank.epoch
        strategy_step()
        strategy = rank.strategy
        state.committed = rank.epoch == epochs or strategy.commits(state.step - 1)
        boundary = state.committed or strategy.is_boundary(state.step - 1, rank.epoch > epoch)
    if not state.committed:
        rank.mean(state.params)
        state.committed = True


def _look_at_progress(rank: TrainingRank) -> bool:
    """Evaluate if that is due; return whether the run is to end."""
    state, evaluation = rank.state, rank.evaluation
    w = rank.w
    if not state.committed:
        w = evaluation.off_the_clock(lambda: rank.mean(state.params.copy()))
    if state.consumed >= evaluation.due_at:
        rank.note()
        evaluation.at(w, state.step)
        evaluation.passed(state.consumed)
    return rank.early_stopping.is_due and rank.decide(w, shared=rank.strategy.replicated)
