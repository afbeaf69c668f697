"""What a run is told takes effect at one step boundary, the same on all ranks: against NumPy that changes there, too."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import scaleml
from runtime import harness, reference
from runtime.test_strategies import BATCH, COLUMNS, EPOCHS, ROWS, SHARDS, close, linear, made, problem
from scaleml.faults import Crash, InjectedCrash, Kill, Slow
from scaleml.optim import SGD
from scaleml.runtime.commands import Command
from scaleml.runtime.serialization import describe
from scaleml.strategies import AllReduce, Hogwild, LocalSGD, ParameterServer, Serial
from scaleml.telemetry import Ledger

RANKS = 3
STEPS = EPOCHS * -(-ROWS // BATCH)
RATES = (0.3, 0.03)


def told(*commands, strategy=AllReduce(), at=5, workers=RANKS, optimizer=None, **settings):  # noqa: B008  immutable
    x, y, _ = made("binary")
    numbered = [(at, Command(number, verb, facts)) for number, (verb, facts) in enumerate(commands, 1)]
    return harness.on_threads(
        linear("binary"), x, y, strategy=strategy, optimizer=optimizer or SGD(RATES[0], momentum=0.5), workers=workers,
        shards=SHARDS, epochs=EPOCHS, batch_size=BATCH, commands=numbered, **settings,
    )  # fmt: skip


def one_step(applied, ranks=RANKS):
    """Return the step at which all ranks applied a command."""
    assert sorted(applied) == list(range(ranks))
    assert len(set(applied.values())) == 1
    return applied[0]


def rule(change):
    return reference.Sgd(lambda t: RATES[0] if t <= change else RATES[1], 0.5)


def switching(cut, period_of, ranks=RANKS, epochs=EPOCHS, steps=None, rate_of=lambda step: RATES[0]):
    """All-reduce where ``period_of(step)`` is None, else local steps: momentum is averaged when those end."""
    own = [range(r * SHARDS // ranks, (r + 1) * SHARDS // ranks) for r in range(ranks)]
    w, v = np.zeros((ranks, COLUMNS + 1)), np.zeros((ranks, COLUMNS + 1))
    before = None
    for step, parts in enumerate(cut.batches(epochs, BATCH)):
        if step == steps:
            break
        period = period_of(step)
        if before is not None and period is None:
            v[:] = v.mean(axis=0)
        for rank in range(ranks):
            g = cut.gradient(w[rank], np.concatenate(parts if period is None else [parts[s] for s in own[rank]]))
            if g is not None:
                v[rank] = 0.5 * v[rank] + g
                w[rank] -= rate_of(step) * v[rank]
        if period is not None and (step + 1) % period == 0:
            w[:] = w.mean(axis=0)
        before = period
    return w.mean(axis=0)


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer("bsp", servers=2)], ids=repr)
def test_a_new_rate_acts_from_one_step_on(strategy, ranks):
    result = told(("update", {"learning_rate": RATES[1]}), strategy=strategy, workers=ranks)
    step = one_step(result.applied[1], ranks)
    alone = ranks == 1 and not strategy.layout(1).servers
    assert step == (5 if alone else 6), "announced after 5 steps, carried by the next"
    close(result.params, reference.serial(problem("binary"), np.zeros(COLUMNS + 1), rule(step), EPOCHS, BATCH))


def test_local_sgd_obeys_where_it_averages():
    result = told(("update", {"learning_rate": RATES[1]}), strategy=LocalSGD(4))
    step = one_step(result.applied[1])
    assert 5 < step < STEPS
    assert step % 4 == 0
    rules = [rule(step) for _ in range(RANKS)]
    close(result.params, reference.local(problem("binary"), np.zeros(COLUMNS + 1), rules, EPOCHS, BATCH, 4))


@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer("bsp", servers=2)], ids=repr)
def test_a_new_batch_size_acts_from_one_step_on(strategy):
    result = told(("update", {"batch_size": 70}), strategy=strategy)
    step = one_step(result.applied[1])
    expected = reference.serial(
        problem("binary"), np.zeros(COLUMNS + 1), rule(STEPS * 2), EPOCHS, lambda k: BATCH if k < step else 70
    )
    close(result.params, expected)


@pytest.mark.parametrize("first", [AllReduce(), LocalSGD(4)], ids=repr)
def test_a_new_strategy_acts_from_one_step_on(first):
    second = LocalSGD(4) if first == AllReduce() else AllReduce()
    result = told(("update", {"strategy": describe(second)}), strategy=first)
    step = one_step(result.applied[1])
    periods = [getattr(first, "period", None), getattr(second, "period", None)]
    close(result.params, switching(problem("binary"), lambda k: periods[k >= step]))
    for outcome in result.outcomes:
        assert_array_equal(outcome.params, result.params)


def test_to_local_steps_and_back():
    commands = [("update", {"strategy": describe(LocalSGD(4))}), ("update", {"strategy": describe(AllReduce())})]
    result = told(*commands)
    there, back = (one_step(result.applied[number]) for number in (1, 2))
    assert there < back < STEPS
    close(result.params, switching(problem("binary"), lambda k: 4 if there <= k < back else None))


@pytest.mark.parametrize("strategy", [Serial(), AllReduce(), LocalSGD(4), ParameterServer("bsp", servers=2)], ids=repr)
def test_a_pause_changes_nothing(strategy):
    plain = told(strategy=strategy)
    result = told(("pause", {}), ("resume", {}), strategy=strategy)
    assert_array_equal(result.params, plain.params)
    ranks = strategy.layout(RANKS).workers
    assert one_step(result.applied[1], ranks) == one_step(result.applied[2], ranks)


def test_what_is_told_in_a_pause_acts_there():
    result = told(("pause", {}), ("pause", {}), ("update", {"learning_rate": RATES[1]}), ("resume", {}))
    steps = {one_step(result.applied[number]) for number in (1, 2, 3, 4)}
    assert len(steps) == 1
    expected = reference.serial(problem("binary"), np.zeros(COLUMNS + 1), rule(steps.pop()), EPOCHS, BATCH)
    close(result.params, expected)


@pytest.mark.parametrize("verbs", [("stop",), ("pause", "stop")])
@pytest.mark.parametrize(
    "strategy",
    [Serial(), AllReduce(), LocalSGD(4), ParameterServer(servers=2), ParameterServer("ssp", staleness=2), Hogwild()],
    ids=repr,
)
def test_a_stop_leaves_the_same_parameters_on_all_ranks(strategy, verbs, monkeypatch):
    hold = harness.held_until_told(monkeypatch, strategy)
    result = told(*[(verb, {}) for verb in verbs], strategy=strategy, hook=hold)
    assert result.state == "stopped"
    ranks = strategy.layout(RANKS).workers
    if strategy.synchronous:
        step = one_step(result.applied[len(verbs)], ranks)
        assert {outcome.step for outcome in result.outcomes} == {step}
        period = getattr(strategy, "period", None)
        expected = switching(problem("binary"), lambda k: period, ranks=ranks, steps=step)
        close(result.params, expected)
    for outcome in result.outcomes[:ranks]:
        assert_array_equal(outcome.params, result.params)
    assert np.isfinite(result.params).all()
    assert np.abs(result.params).max() > 0


@pytest.mark.parametrize("strategy", [ParameterServer(servers=2), Hogwild()], ids=repr)
def test_a_new_rate_acts_from_the_very_next_update_on(strategy):
    result = told(("update", {"learning_rate": RATES[1]}), strategy=strategy, workers=1)
    step = result.applied[1][0]
    close(result.params, reference.serial(problem("binary"), np.zeros(COLUMNS + 1), rule(step), EPOCHS, BATCH))


@pytest.mark.parametrize("staleness", [0, 3])
def test_stale_synchronous_workers_obey_at_one_step(staleness):
    strategy = ParameterServer("ssp", staleness=staleness, servers=2)
    result = told(("pause", {}), ("resume", {}), ("update", {"batch_size": 70}), strategy=strategy)
    pause, resume, update = (one_step(result.applied[number]) for number in (1, 2, 3))
    assert pause == resume == 6 + staleness, "when the fastest that may have begun a step is through with it"
    assert update > resume


@pytest.mark.parametrize("fault", [Crash(1, 0), Crash(1, 5), Crash(1, 12)], ids=repr)
def test_an_injected_crash_happens_also_if_its_step_has_passed(fault):
    with pytest.raises(InjectedCrash, match="Crash"):
        told(("inject", describe(fault)))


def test_an_injected_drag_slows_the_rank():
    drag = Slow(rank=1, factor=200)
    plain, slow = told(), told(("inject", describe(drag)))
    assert_array_equal(slow.params, plain.params)
    before, after = Ledger(plain.history), Ledger(slow.history)
    assert after.compute[1] > 10 * before.compute[1], "the fault did not happen"


def test_commands_on_workers_act_at_one_step(cluster):
    x, y, _ = made("binary")
    epochs = 100_000
    run = scaleml.start(
        linear("binary"), x, y, strategy=AllReduce(), optimizer=SGD(RATES[0], momentum=0.5), workers=RANKS,
        shards=SHARDS, epochs=epochs, batch_size=BATCH,
    )  # fmt: skip
    run.pause()
    assert run.state == "paused"
    run.update(learning_rate=RATES[1])
    run.resume()
    assert run.state == "running"
    run.update(strategy=LocalSGD(4))
    assert repr(run).startswith("<Run AllReduce(), then LocalSGD(period=4): ")
    run.update(strategy=AllReduce())
    assert repr(run).startswith("<Run AllReduce(): ")
    run.stop()
    assert run.state == "stopped"
    applied = [one_step(run._driver.applied_at(number)) for number in range(1, 7)]
    pause, update, resume, there, back, stop = applied
    assert pause == update == resume < there < back < stop, "nothing moves in a pause"
    assert back % 4 == 0, "local ranks apply commands where they average"
    cut = problem("binary")
    expected = switching(
        cut, lambda k: 4 if there <= k < back else None, epochs=epochs, steps=stop, rate_of=lambda k: RATES[k >= pause]
    )
    close(run.params, expected, 1e-9)
    assert run.model.score(x, y) > 0.6
    assert [text for _, text in run.history.marks] == [
        "learning_rate=0.03", "strategy=LocalSGD(period=4)", "strategy=AllReduce()",
    ]  # fmt: skip


def test_samples_stand_still_in_a_pause(cluster):
    x, y, _ = made("binary")
    for strategy in (Serial(), LocalSGD(3), ParameterServer(), Hogwild()):
        run = scaleml.start(linear("binary"), x, y, strategy=strategy, workers=2, epochs=100_000, batch_size=BATCH)
        run.pause()
        applied = run._driver.applied_at(1)
        newest = {}

        def caught_up(run=run, applied=applied, newest=newest):
            rows = run.history.rows
            newest.update({int(row[0]): int(row[1]) for row in rows})
            return all(newest.get(rank) == step for rank, step in applied.items())

        assert harness.await_condition(caught_up), f"rows go past the pause: {newest} {applied}"
        run.update(batch_size=BATCH - 1)
        assert run._driver.applied_at(2) == applied
        clock = run.train_seconds
        run.resume()
        assert harness.await_condition(lambda run=run, clock=clock: run.train_seconds > clock)
        run.stop()
        assert run.state == "stopped"


def test_a_run_that_is_over_takes_no_commands(cluster):
    x, y, _ = made("binary")
    run = scaleml.train(linear("binary"), x, y, workers=2, epochs=1)
    for tell in (run.pause, run.resume, lambda: run.update(learning_rate=0.1), lambda: run.inject(Slow(1, 2))):
        with pytest.raises(RuntimeError, match="finished"):
            tell()
    run.stop()  # it has stopped
    assert run.state == "finished"


def test_wrong_values_are_refused_and_the_run_goes_on(cluster):
    x, y, _ = made("binary")
    run = scaleml.start(linear("binary"), x, y, workers=2, epochs=100_000)
    run.update(learning_rate=0.01)  # returns when it runs
    for rate in (0, -1, float("nan"), float("inf"), "fast"):
        with pytest.raises(ValueError, match="learning_rate"):
            run.update(learning_rate=rate)
    for size in (0, -3, 2.5, "all"):
        with pytest.raises(ValueError, match="batch_size"):
            run.update(batch_size=size)
    with pytest.raises(TypeError, match="strategy"):
        run.update(strategy="allreduce")
    with pytest.raises(ValueError, match="pass workers=1"):
        run.update(strategy=Serial())
    with pytest.raises(ValueError, match="there are 2 ranks"):
        run.inject(Kill(2, 0))
    with pytest.raises(TypeError, match="no fault"):
        run.inject("kill")
    assert run.state == "running"
    run.stop()
