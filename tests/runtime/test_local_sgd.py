"""Local SGD against plain NumPy: who averages what, and when."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from runtime import harness, reference
from runtime.test_commands import one_step, switching, told
from runtime.test_strategies import BATCH, COLUMNS, EPOCHS, ROWS, SHARDS, close, linear, made, problem, start
from scaleml.models import MLP
from scaleml.optim import SGD, Adam
from scaleml.runtime.commands import Command
from scaleml.runtime.serialization import describe, strategy_from
from scaleml.strategies import AllReduce, LocalSGD

STEPS = EPOCHS * -(-ROWS // BATCH)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("period", [1, 4, STEPS - 1, STEPS, 1000, None])
def test_local_sgd_averages_every_period_and_at_the_end(period, ranks):
    x, y, _ = made("binary")
    rules = [reference.Sgd(0.3, 0.9) for _ in range(ranks)]  # one a rank: momentum stays local
    expected = reference.local(problem("binary"), np.zeros(COLUMNS + 1), rules, EPOCHS, BATCH, period)
    result = harness.on_threads(
        linear("binary"), x, y, strategy=LocalSGD(period), optimizer=SGD(0.3, momentum=0.9), workers=ranks,
        shards=SHARDS, epochs=EPOCHS, batch_size=BATCH,
    )  # fmt: skip
    close(result.params, expected)
    for outcome in result.outcomes:
        assert_array_equal(outcome.params, result.params)


def test_local_sgd_everywhere(train, storage):
    x, y, _ = made("multiclass")
    model = MLP((5,), "tanh", alpha=0.01, dtype="float64")
    rules = [reference.Adam(0.02) for _ in range(3)]
    expected = reference.local(problem("multiclass", (5,)), start(model, x, y), rules, EPOCHS, BATCH, 4)
    result = train(
        model, storage(x), y, strategy=LocalSGD(4), optimizer=Adam(0.02), workers=3, shards=SHARDS, epochs=EPOCHS,
        batch_size=BATCH,
    )  # fmt: skip
    close(result.params, expected)


def test_momentum_that_were_shared_would_show():
    # The oracle of the tests above must be able to fail: with momentum averaged too, another result.
    cut = problem("binary")
    private = reference.local(cut, np.zeros(COLUMNS + 1), [reference.Sgd(0.3, 0.9) for _ in range(2)], EPOCHS, BATCH, 4)
    shared = reference.serial(cut, np.zeros(COLUMNS + 1), reference.Sgd(0.3, 0.9), EPOCHS, BATCH)
    assert np.abs(private - shared).max() > 1e-6


def test_a_period_of_one_with_equal_parts_is_allreduce():
    # 600 rows in 3 equal shards, batches of 60: every rank has 20 rows of each, so means of means are means.
    x, y, _ = made("regression", rows=600)
    params = [
        harness.on_threads(
            linear("regression"), x, y, strategy=strategy, optimizer=SGD(0.1), workers=3, shards=3, batch_size=60
        ).params
        for strategy in (AllReduce(), LocalSGD(1))
    ]
    close(params[1], params[0])


DILOCO = SGD(0.7, momentum=0.9, nesterov=True)
OUTER = {
    "diloco": (DILOCO, lambda: reference.Sgd(0.7, 0.9, nesterov=True)),
    "adam": (Adam(0.05), lambda: reference.Adam(0.05)),
    "clipped": (SGD(0.5, clip_norm=0.01), lambda: reference.Sgd(0.5, clip=0.01)),
}


@pytest.mark.parametrize("outer", list(OUTER))
@pytest.mark.parametrize(("ranks", "period", "start_after"), [(1, 3, 0), (2, 4, 5), (3, 5, 0), (5, 4, 2), (3, 50, 7)])
def test_an_outer_optimizer_steps_from_mean_to_mean(outer, ranks, period, start_after):
    x, y, _ = made("binary")
    optimizer, rule = OUTER[outer]
    rules = [reference.Sgd(0.3, 0.9) for _ in range(ranks)]
    cut = problem("binary")
    expected = reference.local(cut, np.zeros(COLUMNS + 1), rules, EPOCHS, BATCH, period, rule(), start_after)
    plain = reference.local(
        cut, np.zeros(COLUMNS + 1), [reference.Sgd(0.3, 0.9) for _ in range(ranks)], EPOCHS, BATCH, period
    )
    assert np.abs(expected - plain).max() > 1e-6, "an outer optimizer that did nothing would show nothing"
    result = harness.on_threads(
        linear("binary"), x, y, strategy=LocalSGD(period, outer=optimizer, start_after=start_after),
        optimizer=SGD(0.3, momentum=0.9), workers=ranks, shards=SHARDS, epochs=EPOCHS, batch_size=BATCH,
    )  # fmt: skip
    close(result.params, expected)
    for outcome in result.outcomes:
        assert_array_equal(outcome.params, result.params)


@pytest.mark.parametrize("strategy", [LocalSGD(4, outer=DILOCO), LocalSGD(None), LocalSGD(3, start_after=6)], ids=repr)
def test_its_relatives_everywhere(train, storage, strategy):
    x, y, _ = made("multiclass")
    rules = [reference.Adam(0.02) for _ in range(3)]
    expected = reference.local(
        problem("multiclass"), np.zeros((COLUMNS + 1) * 3), rules, EPOCHS, BATCH, strategy.period,
        None if strategy.outer is None else reference.Sgd(0.7, 0.9, nesterov=True), strategy.start_after,
    )  # fmt: skip
    result = train(
        linear("multiclass"), storage(x), y, strategy=strategy, optimizer=Adam(0.02), workers=3, shards=SHARDS,
        epochs=EPOCHS, batch_size=BATCH, validation=(x[:50], y[:50]),
    )  # fmt: skip
    close(result.params, expected)


def test_an_outer_step_of_one_is_the_mean():
    x, y, _ = made("binary")
    params = [
        harness.on_threads(
            linear("binary"), x, y, strategy=LocalSGD(4, outer=outer), optimizer=SGD(0.3, momentum=0.9), workers=3,
            batch_size=BATCH,
        ).params
        for outer in (None, SGD(1.0))
    ]  # fmt: skip
    close(params[1], params[0], 1e-13)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_starting_after_the_last_step_is_allreduce(workers):
    x, y, _ = made("multiclass")
    params = [
        harness.on_threads(
            MLP((5,)), x, y, strategy=strategy, optimizer=Adam(0.02), workers=workers, epochs=EPOCHS, batch_size=BATCH
        ).params
        for strategy in (AllReduce(), LocalSGD(4, start_after=STEPS))
    ]
    if workers == 2:  # the sum is halved before it is divided: exact for powers of two
        assert_array_equal(*params)
    close(params[1], params[0], 1e-4)


def test_one_average_is_evaluated_as_the_mean_and_told_between_epochs():
    x, y, _ = made("binary")
    held_out = (x[:101], y[:101])
    result = told(("update", {"learning_rate": 0.03}), strategy=LocalSGD(None), at=2, validation=held_out)
    per_epoch = -(-ROWS // BATCH)
    assert one_step(result.applied[1]) == per_epoch
    cut = problem("binary")
    close(result.params, switching(cut, lambda k: STEPS + 1, rate_of=lambda k: 0.3 if k < per_epoch else 0.03))
    after_one = reference.local(cut, np.zeros(COLUMNS + 1), [reference.Sgd(0.3, 0.5) for _ in range(3)], 1, BATCH, None)
    z = x[:101] @ after_one[:-1] + after_one[-1]
    loss = np.mean(np.logaddexp(0, z) - y[:101] * z)
    assert result.history.evaluations["loss"][1] == pytest.approx(loss, rel=1e-9)
    # A stop leaves the mean, too.
    stopped = told(("stop", {}), strategy=LocalSGD(None), at=2)
    close(stopped.params, after_one)


def test_a_new_rate_is_the_inner_optimizers():
    result = told(("update", {"learning_rate": 0.03}), strategy=LocalSGD(4, outer=DILOCO))
    step = one_step(result.applied[1])
    rules = [reference.Sgd(lambda t: 0.3 if t <= step else 0.03, 0.5) for _ in range(3)]
    outer = reference.Sgd(0.7, 0.9, nesterov=True)
    close(result.params, reference.local(problem("binary"), np.zeros(COLUMNS + 1), rules, EPOCHS, BATCH, 4, outer))


def test_an_outer_optimizer_comes_and_goes_in_mid_run():
    strategies = (AllReduce(), LocalSGD(4, outer=DILOCO))
    commands = [
        (at, Command(number, "update", {"strategy": describe(strategy)}))
        for number, (at, strategy) in enumerate(zip((5, 14), strategies, strict=True), 1)
    ]
    x, y, _ = made("binary")
    result = harness.on_threads(
        linear("binary"), x, y, strategy=LocalSGD(4, outer=DILOCO), optimizer=SGD(0.3, momentum=0.5), workers=3,
        shards=SHARDS, epochs=EPOCHS, batch_size=BATCH, commands=commands,
    )  # fmt: skip
    there, back = (one_step(result.applied[number]) for number in (1, 2))
    assert there < back < STEPS
    cut = problem("binary")
    copies, v, outer, anchor = np.zeros((3, COLUMNS + 1)), np.zeros((3, COLUMNS + 1)), None, None
    for step, parts in enumerate(cut.batches(EPOCHS, BATCH)):
        alone = not there <= step < back
        if step in (0, back):
            outer, anchor = reference.Sgd(0.7, 0.9, nesterov=True), copies[0].copy()
        if step == there:
            v[:] = v.mean(axis=0)
        for rank in range(3):
            g = cut.gradient(copies[rank], reference.share(parts, 3, rank) if alone else np.concatenate(parts))
            if g is not None:
                v[rank] = 0.5 * v[rank] + g
                copies[rank] -= 0.3 * v[rank]
        if alone and ((step + 1) % 4 == 0 or step == STEPS - 1):
            anchor = outer(anchor, anchor - copies.mean(axis=0))
            copies[:] = anchor
    close(result.params, copies[0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"period": 0}, "period=0"),
        ({"period": True}, "period=True"),
        ({"outer": 0.7}, "outer=0.7"),
        ({"period": None, "outer": SGD(1.0)}, "one average"),
        ({"outer": SGD(schedule="adaptive")}, "adaptive"),
        ({"start_after": -1}, "start_after=-1"),
    ],
)
def test_what_cannot_be_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        LocalSGD(**settings)


def test_a_strategy_travels_with_the_optimizer_in_it():
    strategy = LocalSGD(3, outer=DILOCO, start_after=2)
    assert strategy_from(describe(strategy)) == strategy
    assert repr(LocalSGD(3, outer=SGD(1.0))).startswith("LocalSGD(period=3, outer=SGD(learning_rate=1.0")
