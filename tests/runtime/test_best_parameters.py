"""The best parameters: those whose held-out loss was the lowest of all evaluations, under every strategy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from runtime import harness
from runtime.test_train_state import FAMILY, RANKS, best_of, take_turns
from scaleml import SGD, Adam, AllReduce
from scaleml.data.source import array_source
from scaleml.models import MLP, Signature
from scaleml.runtime.best_parameters import BestParameters
from scaleml.runtime.commands import Command
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.training_loop import TrainingLoop

# Labels that are mostly chance: what is learnt of them by heart makes the held-out loss worse.
RANDOM = np.random.default_rng(0)
X, HELD_X = RANDOM.standard_normal((2, 90, 8))
Y, HELD_Y = ((x[:, 0] + 2 * RANDOM.standard_normal(90) > 0).astype(int) for x in (X, HELD_X))
MODEL = MLP((16,), dtype="float64")


def overfitted(strategy, **more):
    def prepare(loop):
        if isinstance(loop, TrainingLoop):
            take_turns(loop)

    usual = {
        "workers": RANKS,
        "epochs": 12,
        "batch_size": 30,
        "optimizer": SGD(0.5),
        "simulated": True,
        "prepare": prepare,
    }
    return harness.on_threads(MODEL, X, Y, strategy=strategy, validation=(HELD_X, HELD_Y), **{**usual, **more})


def held_out_loss(params):
    held = array_source(HELD_X, HELD_Y, classifier=True)
    network = MODEL.build(Signature(8, dtype="float64"))
    return network.summarise(network.statistics(params, held.x, held.encode("float64")))[0]


@pytest.mark.parametrize("strategy", FAMILY, ids=repr)
def test_they_have_the_lowest_loss_that_was_ever_evaluated(strategy):
    result = overfitted(strategy)
    losses = result.history.evaluations["loss"]
    best = result.outcomes[0].best
    assert best.evaluation == np.argmin(losses) < len(losses) - 1
    assert best.value == losses.min()
    assert held_out_loss(best_of(result)) == pytest.approx(losses.min(), rel=1e-12)
    assert held_out_loss(result.params) > losses.min()


@pytest.mark.parametrize("strategy", FAMILY, ids=repr)
def test_all_ranks_that_train_have_kept_the_same(strategy):
    first, *others = overfitted(strategy, epochs=4).outcomes[: strategy.layout(RANKS).workers]
    for other in others:
        assert (other.best.value, other.best.evaluation) == (first.best.value, first.best.evaluation)
        assert (other.best.params is None) == (first.best.params is None)
        if first.best.params is not None:
            assert_array_equal(other.best.params, first.best.params)


def test_what_is_the_best_in_the_end_is_not_sent_twice():
    result = overfitted(AllReduce(), epochs=1, optimizer=SGD(0.05))
    assert result.outcomes[0].best == BestParameters(result.history.evaluations["loss"][-1], 1, None)
    assert_array_equal(best_of(result), result.params)


def test_a_run_that_is_told_to_stop_has_them_too():
    result = overfitted(AllReduce(), commands=[(20, Command(1, "stop", {}))], optimizer=SGD(2.0))
    losses = result.history.evaluations["loss"]
    assert result.state == "stopped"
    assert held_out_loss(best_of(result)) == pytest.approx(losses.min(), rel=1e-12)


def test_without_held_out_data_there_are_none():
    result = harness.on_threads(MODEL, X, Y, strategy=AllReduce())
    assert result.outcomes[0].best == BestParameters()


def test_a_stop_rule_keeps_the_best_of_what_it_monitors():
    rule = StopRule(tol=None, monitor="score", keep_best=True)
    result = overfitted(AllReduce(), stop=rule, optimizer=Adam(0.05))
    scores = result.history.evaluations["score"][1:]  # scikit-learn judges after each epoch
    outcome = result.outcomes[0]
    assert outcome.best.evaluation == np.argmax(scores) + 1 < len(scores)
    assert outcome.best.value == -scores.max()
    held = array_source(HELD_X, HELD_Y, classifier=True)
    network = MODEL.build(Signature(8, dtype="float64"))
    assert (network.predict(result.params, held.x) == held.y).mean() == pytest.approx(scores.max())


def test_a_stop_rule_that_gives_out_the_last_keeps_the_best_beside_it():
    ruled, usual = overfitted(AllReduce(), stop=StopRule(tol=None)), overfitted(AllReduce())
    assert_array_equal(best_of(ruled), best_of(usual))
    assert_array_equal(ruled.params, usual.params)


def test_of_two_equal_ones_the_earlier_stays_and_no_number_never_wins():
    best = BestParameters()
    assert not best.is_beaten_by(float("nan"))
    best.keep(0.5, np.ones(2), 3)
    assert not best.is_beaten_by(0.5)
    assert not best.is_beaten_by(float("nan"))
    assert best.is_beaten_by(0.4999)
