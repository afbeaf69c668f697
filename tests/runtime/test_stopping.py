"""Stop rules: all ranks end at the same step, for the same reason."""

import copy
import dataclasses

import numpy as np
import pytest

from scaleml import SGD, Adam, AllReduce, LinearModel, LocalSGD, ParameterServer
from scaleml.comm import inprocess
from scaleml.data.batches import Batches, Schedule
from scaleml.models import Signature
from scaleml.optim import Averaged
from scaleml.runtime.commands import CommandQueue
from scaleml.runtime.parameter_server.server_loop import ServerLoop
from scaleml.runtime.plan import Plan
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.train_state import TrainState
from scaleml.runtime.training_loop import TrainingLoop
from scaleml.telemetry.recorder import Recorder

ROWS, FEATURES, RANKS = 240, 4, 3
STRATEGIES = [AllReduce(), LocalSGD(7), ParameterServer(servers=2)]


def data(rows, seed):
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, FEATURES))
    return x, (x[:, 0] + 0.3 * random.standard_normal(rows) > 0).astype(float), None


def outcomes(strategy, stop, *, optimizer=None, epochs=60, held_out=False, **more):
    """Train on threads; return how the ranks that train ended."""
    layout = strategy.layout(RANKS)
    plan = Plan(
        model=LinearModel(alpha=1e-3, dtype="float64").build(Signature(FEATURES)),
        strategy=strategy,
        optimizer=optimizer or SGD(0.5),
        layout=layout,
        shard_sizes=(ROWS // RANKS,) * RANKS,
        epochs=epochs,
        batch_size=30,
        seed=0,
        dtype="float64",
        evaluate_every=ROWS,
        stop=stop,
        **more,
    )

    def rank(group):
        own = dataclasses.replace(plan, model=copy.copy(plan.model))
        recorder = Recorder(group.rank, group.meter)
        report = lambda *_, **__: None  # noqa: E731
        if layout.is_server(group.rank):
            return ServerLoop(own, group, report, recorder).run()
        batches = Batches(Schedule(own.shard_sizes), [group.rank], [data(ROWS // RANKS, group.rank)])
        held = data(50, 10 + group.rank) if held_out else None
        return TrainingLoop(own, group, batches, held, CommandQueue(), report, recorder).run()

    return inprocess.run(layout.size, rank)[:RANKS]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
@pytest.mark.parametrize("monitor", ["loss", "score"])
def test_all_ranks_stop_together_with_the_same_parameters(strategy, monitor):
    rule = StopRule(tol=5e-3, n_iter_no_change=3, monitor=monitor, keep_best=monitor == "score")
    ended = outcomes(strategy, rule, held_out=monitor == "score")
    assert len({outcome.epochs for outcome in ended}) == 1
    assert 3 < ended[0].epochs < 60
    assert all(outcome.losses == ended[0].losses and outcome.scores == ended[0].scores for outcome in ended)
    assert all((outcome.params == ended[0].params).all() for outcome in ended)
    assert all(outcome.status == "finished" for outcome in ended)


def test_the_rule_counts_as_scikit_learn_does():
    rule = StopRule(tol=1e9, n_iter_no_change=4)  # no epoch but the first is an improvement
    assert outcomes(AllReduce(), rule)[0].epochs == 5
    assert outcomes(AllReduce(), StopRule(tol=None))[0].epochs == 60


def test_local_sgd_decides_at_commits_only():
    ended = outcomes(LocalSGD(7), StopRule(tol=1e9, n_iter_no_change=1))
    # Epochs of 8 steps end at 8, 16, ..; commits come after 7, 14, 21, ..: the second decision is at 21.
    assert ended[0].step == 21


def test_the_objective_is_that_of_one_process():
    rule = StopRule(tol=None)
    losses = [outcomes(strategy, rule, epochs=30)[0].losses[-1] for strategy in (AllReduce(), LocalSGD(1))]
    assert abs(losses[0] - losses[1]) < 1e-3


def test_adaptive_slows_down_before_it_stops():
    rule = StopRule(tol=1e-2, n_iter_no_change=2)
    (first, *_) = outcomes(AllReduce(), rule, optimizer=SGD(0.5, momentum=0.5, schedule="adaptive"), keep_end=True)
    assert first.epochs > outcomes(AllReduce(), rule)[0].epochs
    assert first.state.arrays["schedule"][0] >= 5


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_training_goes_on_from_where_it_ended(strategy):
    plain = StopRule(tol=None)
    (whole, *_) = outcomes(strategy, plain, epochs=8, optimizer=SGD(0.1, momentum=0.5))
    (half, *_) = outcomes(strategy, plain, epochs=4, optimizer=SGD(0.1, momentum=0.5), keep_end=True)
    (rest, *_) = outcomes(strategy, plain, epochs=4, optimizer=SGD(0.1, momentum=0.5), start=half.state.warm_start())
    assert isinstance(half.state, TrainState)
    if strategy == AllReduce():
        assert (rest.params == whole.params).all()
    assert rest.losses[-1] < half.losses[0]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_averages_lie_between_where_training_went(strategy):
    (plain, *_) = outcomes(strategy, StopRule(tol=None), epochs=10, optimizer=SGD(2.0))
    ended = outcomes(strategy, StopRule(tol=None), epochs=10, optimizer=Averaged(SGD(2.0)))
    assert all((outcome.params == ended[0].params).all() for outcome in ended)
    assert 0 < np.linalg.norm(ended[0].params) < 1.2 * np.linalg.norm(plain.params)
    assert not np.allclose(ended[0].params, plain.params)


def test_an_average_that_never_began_is_the_end_itself():
    (plain, *_) = outcomes(AllReduce(), StopRule(tol=None), epochs=2, optimizer=Adam(0.1))
    (late, *_) = outcomes(AllReduce(), StopRule(tol=None), epochs=2, optimizer=Averaged(Adam(0.1), start=1000))
    assert (plain.params == late.params).all()


def test_a_run_without_a_rule_is_what_it_was():
    (ended, *_) = outcomes(AllReduce(), None, epochs=3)
    assert (ended.epochs, ended.losses, ended.scores, ended.state) == (3, (), (), None)
