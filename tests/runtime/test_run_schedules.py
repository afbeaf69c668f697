"""Schedules that go with the run: the same curve on ranks and servers, through changes in mid-run, to the end of the run."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from runtime import harness, reference
from runtime.test_strategies import BATCH, COLUMNS, EPOCHS, ROWS, SHARDS, close, linear, made, problem
from scaleml.optim import SGD, Adam, CosineAnnealing, LinearDecay, Warmup
from scaleml.optim.place import place_of
from scaleml.runtime.commands import Command
from scaleml.runtime.train_state import TrainState
from scaleml.runtime.training_loop import TrainingLoop
from scaleml.strategies import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial

STEPS = math.ceil(ROWS / BATCH)
WARM = 5
SCHEDULE = Warmup(updates=WARM, then=CosineAnnealing())
X, Y, _ = made("binary")
train = partial(
    harness.on_threads, linear("binary"), X, Y, optimizer=SGD(0.3, 0.5, schedule=SCHEDULE), shards=SHARDS, epochs=EPOCHS,
    batch_size=BATCH, keep_end=True,
)  # fmt: skip


def curve(t, *, rate=0.3, updates=EPOCHS * STEPS, warm=WARM):
    """The rate of update t, by hand."""
    if t <= warm:
        return rate * t / warm
    return rate * (1 + math.cos(math.pi * (t - 1 - warm) / (updates - warm))) / 2


def expected(rate, batch=BATCH):
    return reference.serial(problem("binary"), np.zeros(COLUMNS + 1), reference.Sgd(rate, 0.5), EPOCHS, batch)


@pytest.mark.parametrize(
    ("strategy", "workers"),
    [(Serial(), 1), (AllReduce(), 3), (ParameterServer("bsp", servers=2), 2), (ParameterServer(servers=2), 1)],
    ids=repr,
)
def test_the_curve_of_a_run(strategy, workers):
    close(train(strategy=strategy, workers=workers).params, expected(curve))


def test_local_steps_follow_it_alone():
    rules = [reference.Sgd(curve, 0.5) for _ in range(3)]
    found = train(strategy=LocalSGD(4), workers=3).params
    close(found, reference.local(problem("binary"), np.zeros(COLUMNS + 1), rules, EPOCHS, BATCH, 4))


def end_of(outcome):
    """Return how many epochs are over by the schedule's own reckoning."""
    return place_of(outcome.state.arrays["schedule"], outcome.state.updates + 1).done


@pytest.mark.parametrize(
    "strategy", [ParameterServer(), ParameterServer("ssp", staleness=1), Hogwild(), Gossip(asynchronous=True)], ids=repr
)
@pytest.mark.parametrize("shared_memory", [True, False])
def test_where_ranks_step_by_themselves_it_ends_with_the_run(strategy, shared_memory):
    if strategy.shares_memory and not shared_memory:
        return
    result = train(strategy=strategy, workers=2, shared_memory=shared_memory, simulated=not strategy.shares_memory)
    outcomes = result.outcomes[2:] or result.outcomes
    assert_allclose(np.mean([end_of(outcome) for outcome in outcomes]), EPOCHS, rtol=0.1)


def test_a_new_learning_rate_acts_on_the_whole_curve():
    told = [(20, Command(1, "update", {"learning_rate": 0.1}))]
    for strategy in (AllReduce(), ParameterServer("bsp", servers=2)):
        result = train(strategy=strategy, workers=2, commands=told)
        (after,) = {result.applied[1][0]}
        close(result.params, expected(lambda t, after=after: curve(t, rate=0.3 if t <= after else 0.1)))


@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer("bsp")], ids=repr)
def test_with_another_batch_size_it_still_ends_with_the_run(strategy):
    told = [(20, Command(1, "update", {"batch_size": 2 * BATCH}))]
    schedule = LinearDecay()
    result = train(strategy=strategy, workers=2, commands=told, optimizer=SGD(0.3, 0.5, schedule=schedule))
    after, fewer = result.applied[1][0], math.ceil(ROWS / (2 * BATCH))
    epoch, taken = divmod(after, STEPS)
    assert (epoch, taken > 5) == (1, True)
    left = math.ceil((ROWS - taken * BATCH) / (2 * BATCH))
    first = epoch + 1 - left / fewer if isinstance(strategy, AllReduce) else after / STEPS

    def rate(t):
        done = (t - 1) / STEPS if t <= after else first + (t - 1 - after) / fewer
        return 0.3 * (1 - min(1.0, done / EPOCHS))

    close(result.params, expected(rate, lambda step: BATCH if step < after else 2 * BATCH))
    assert_allclose(end_of(result.outcomes[-1]), EPOCHS, rtol=1e-12 if isinstance(strategy, AllReduce) else 0.05)


def at_a_pace_of_its_own(loop):
    """Have a step of rank 0 take a millisecond of virtual time, and one of rank 1 two."""
    if isinstance(loop, TrainingLoop):
        take_step = loop.rank.take_step

        def last_a_while():
            take_step()
            loop.rank.world.clock.sleep(1e-3 * (1 + loop.rank.world.rank))

        loop.rank.take_step = last_a_while


@pytest.mark.parametrize("strategy", [ParameterServer(servers=2), Gossip(asynchronous=True)], ids=repr)
def test_it_goes_on_under_strategies_that_follow_each_other(strategy):
    first = train(strategy=AllReduce(), workers=2, commands=[(5, Command(1, "switch"))])
    second = train(strategy=strategy, workers=2, before=first.outcomes, commands=[(5, Command(2, "switch"))],
                   simulated=True, prepare=at_a_pace_of_its_own)  # fmt: skip
    assert second.state == "switched"
    assert second.outcomes[0].step > second.outcomes[1].step
    states = [outcome.state for outcome in second.outcomes[:2]]
    assert states[0].updates == states[1].updates, "their next learning rates would differ"
    last = train(strategy=AllReduce(), workers=2, before=second.outcomes)
    for outcome in last.outcomes:
        assert_allclose(end_of(outcome), EPOCHS, rtol=1e-12)
        assert_array_equal(outcome.params, last.params)


def test_a_warm_start_begins_it_anew_and_leaves_other_schedules_alone():
    warm = train(strategy=AllReduce(), workers=2).outcomes[0].state.warm_start()
    adaptive = TrainState(warm.params, {**warm.arrays, "schedule": np.array([125.0, 0.5, 0.0])}, updates=warm.updates)
    again = [train(strategy=AllReduce(), workers=2, start=state).params for state in (warm, adaptive)]
    w = np.array(warm.params)
    rule = reference.Sgd(lambda t: curve(t - warm.updates), 0.5)
    rule.v, rule.t = warm.arrays["velocity"], warm.updates
    close(again[0], reference.serial(problem("binary"), w, rule, EPOCHS, BATCH))
    assert_array_equal(*again)


def test_an_outer_optimizer_has_no_schedule_of_the_run():
    with pytest.raises(ValueError, match="a schedule that goes with the run is the inner optimizer's"):
        LocalSGD(4, outer=Adam(schedule=SCHEDULE))
