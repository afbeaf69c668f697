"""Strategies that follow each other in mid-run: parameters, momentum and the place in the data go on as if nothing had been."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import scaleml
from family.strategies import STRATEGIES
from runtime import harness, reference
from runtime.aftermath import Watch
from runtime.test_commands import switching
from runtime.test_run_schedules import SCHEDULE, STEPS, curve
from runtime.test_strategies import BATCH, COLUMNS, SHARDS, close, linear, made, problem
from scaleml import RunFailed
from scaleml.compression import Int8, PowerSGD, TopK
from scaleml.faults import Crash, Slow
from scaleml.models import MLP
from scaleml.optim import SGD, AdaGrad, Adam
from scaleml.runtime.commands import Command
from scaleml.runtime.serialization import describe
from scaleml.strategies import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial

RANKS, LONG = 3, 100_000
SOME = 40  # steps of a segment, at least
RULES = {
    "momentum": (SGD(0.1, momentum=0.9), lambda: reference.Sgd(0.1, 0.9)),
    "adam": (Adam(0.01), lambda: reference.Adam(0.01)),
    "adagrad": (AdaGrad(0.1, epsilon=0.01), lambda: reference.AdaGrad(0.1, 0.01)),
    "invscaling": (SGD(0.5, schedule="invscaling", power_t=0.3), lambda: reference.Sgd(lambda t: 0.5 / t**0.3)),
    "cosine": (SGD(0.5, schedule=SCHEDULE), lambda: reference.Sgd(partial(curve, rate=0.5, updates=100 * STEPS))),
}


def started(strategy, workers=RANKS, **settings):
    x, y, _ = made("binary")
    usual = {"optimizer": SGD(0.1, momentum=0.5), "shards": SHARDS, "epochs": LONG, "batch_size": BATCH}
    return scaleml.start(linear("binary"), x, y, strategy=strategy, workers=workers, **{**usual, **settings})


def some_steps(run):
    """Wait until the ranks that train have taken some steps more."""
    first = steps(run)
    assert harness.await_condition(lambda: run.over or steps(run) >= first + SOME)
    assert run.state == "running", run.error


def steps(run):
    rows = run.history.rows  # at one moment: the run goes on
    rank, step = (rows[:, scaleml.telemetry.COLUMNS.index(column)] for column in ("rank", "step"))
    return int(step[rank == 0].max(initial=0))


@pytest.mark.parametrize("rule", list(RULES))
def test_a_single_worker_goes_on_as_one_process(cluster, rule):
    # With one worker every strategy is serial SGD: so the whole run must be, whenever it switches.
    optimizer, expected_rule = RULES[rule]
    epochs = 100
    run = started(AllReduce(), 1, optimizer=optimizer, epochs=epochs, shards=1, faults=[Slow(0, 15)])
    told = [ParameterServer(servers=2), AllReduce(), ParameterServer(), LocalSGD(2), Serial()]
    for strategy in told:
        run.update(strategy=strategy)
    assert run.state in ("running", "finished"), run.error
    assert len(run.history.changes) == 1 + len(told), "it was over before it had switched"
    run.wait(60)
    assert run.state == "finished"
    close(
        run.params,
        reference.serial(problem("binary", shards=1), np.zeros(COLUMNS + 1), expected_rule(), epochs, BATCH),
        1e-8,
    )


def test_segments_by_hand_are_one_run():
    """All ranks hand over and others take over, in lock-step: then there is a reference for every step."""
    x, y, _ = made("binary")
    train = partial(
        harness.on_threads, linear("binary"), x, y, optimizer=SGD(0.3, momentum=0.5), workers=RANKS, shards=SHARDS,
        epochs=3, batch_size=BATCH,
    )  # fmt: skip
    plain = train(strategy=AllReduce())
    first = train(strategy=AllReduce(), commands=[(5, Command(1, "switch"))])
    assert first.state == "switched"
    handed = [outcome.state for outcome in first.outcomes]
    assert {state.step for state in handed} == {6}
    assert {state.consumed for state in handed} == {6 * BATCH}
    for state in handed:
        assert_array_equal(state.params, handed[0].params)
        assert np.abs(state.arrays["velocity"]).max() > 0
    rest = train(strategy=AllReduce(), before=first.outcomes)
    assert rest.state == "finished"
    assert_array_equal(rest.params, plain.params)

    local = train(strategy=LocalSGD(4), before=first.outcomes, commands=[(5, Command(2, "switch"))])
    assert local.state == "switched"
    back = local.outcomes[0].state.step
    last = train(strategy=AllReduce(), before=local.outcomes)
    close(last.params, switching(problem("binary"), lambda k: 4 if 6 <= k < back else None))


@pytest.mark.parametrize("strategy", [one for one in STRATEGIES if not isinstance(one, Serial)], ids=repr)
def test_a_run_goes_on_under_every_strategy_and_back(strategy):
    x, y, _ = made("binary")
    train = partial(
        harness.on_threads, linear("binary"), x, y, optimizer=SGD(0.1, momentum=0.5), workers=RANKS, shards=SHARDS, epochs=40,
        batch_size=BATCH,
    )  # fmt: skip
    first = train(strategy=AllReduce(), commands=[(5, Command(1, "switch"))])
    there = train(strategy=strategy, before=first.outcomes, commands=[(3, Command(2, "switch"))])
    assert (first.state, there.state) == ("switched", "switched")
    ends = [outcome.state for outcome in there.outcomes]
    assert max(end.updates for end in ends) > first.outcomes[0].state.updates, "the optimizer counts on"
    back = train(strategy=AllReduce(), before=there.outcomes)
    assert back.state == "finished"
    assert back.outcomes[0].step > max(end.step for end in ends[:RANKS])
    assert np.isfinite(back.params).all()
    # It has learnt what an undisturbed run learns: as near to it as the way of the ranks in between allows.
    whole = train(strategy=AllReduce())
    away = np.linalg.norm(back.params - whole.params) / np.linalg.norm(whole.params)
    assert away < 0.2


def test_servers_get_and_give_back_the_optimizers_state():
    x, y, _ = made("binary")
    train = partial(
        harness.on_threads, linear("binary"), x, y, optimizer=Adam(0.01), workers=RANKS, shards=SHARDS, epochs=LONG,
        batch_size=BATCH,
    )  # fmt: skip
    first = train(strategy=AllReduce(), commands=[(5, Command(1, "switch"))])
    served = train(strategy=ParameterServer(servers=2), before=first.outcomes, commands=[(3, Command(2, "switch"))])
    assert served.state == "switched"
    ends = [outcome.state for outcome in served.outcomes[RANKS:]]
    updates = {end.updates for end in ends}
    assert min(updates) > first.outcomes[0].state.updates == 6, "servers count on"
    state = {name: np.concatenate([end.arrays[name] for end in ends]) for name in ends[0].arrays}
    last = train(strategy=AllReduce(), before=served.outcomes, commands=[(0, Command(3, "switch"))])
    start = last.outcomes[0].state
    assert start.updates == max(updates) + 1, "one step was taken"
    # One step of Adam moves its means by little: they are the servers', not new ones.
    for name, array in start.arrays.items():
        assert np.abs(state[name]).max() > 0
        beta = {"m": 0.9, "v": 0.999}.get(name[0], 0.9)
        assert_allclose(array, state[name], atol=(1 - beta) * 5 * max(1.0, np.abs(state[name]).max()))
    samples = [outcome.state.samples for outcome in served.outcomes[:RANKS]]
    assert served.outcomes[0].state.consumed == sum(samples), "all rows are counted, and once"


def test_there_and_back_on_workers(cluster):
    watch = Watch(cluster)
    run = started(AllReduce(), validation=0.2, faults=[Slow(1, 2)])
    told = [
        ParameterServer(servers=2), AllReduce(compression=Int8()), LocalSGD(4), ParameterServer(), AllReduce(compression=TopK(0.5)),
        AllReduce(),
    ]  # fmt: skip
    for strategy in told:
        some_steps(run)
        run.update(strategy=strategy)
        assert run.state == "running", run.error
    some_steps(run)
    run.update(learning_rate=0.01)
    run.pause()
    with pytest.raises(ValueError, match="resume"):
        run.update(strategy=ParameterServer())
    run.resume()
    some_steps(run)
    run.stop()
    assert run.state == "stopped"
    changes = run.history.changes
    assert [change.text for change in changes] == [
        repr(Slow(1, 2)), *(f"strategy={strategy!r}" for strategy in told), "learning_rate=0.01",
    ]  # fmt: skip
    for before, after in pairwise(changes[1:]):
        assert before.time < after.time
        assert before.step < after.step
    history = run.history
    for rank in range(RANKS):
        rows = history.rows[history["rank"] == rank]
        for column in ("step", "time", "samples"):
            assert (np.diff(rows[:, scaleml.telemetry.COLUMNS.index(column)]) >= 0).all(), column
    trains = history["rank"] < RANKS
    ledger = scaleml.telemetry.Ledger(history.rows[trains])
    clocks = [history["time"][history["rank"] == rank].max() for rank in range(RANKS)]
    assert_allclose(ledger.wall, clocks, rtol=0.05)
    assert ledger.compute[1] > 1.2 * ledger.compute[0], "the slow rank is as fast as the others after it handed over"
    losses = history.evaluations["loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert "from step" in run.summary()
    watch.nothing_left()


@pytest.mark.parametrize(
    "strategy",
    [
        Gossip(), Gossip(asynchronous=True), Hogwild(), ParameterServer("bsp"), ParameterServer("ssp", staleness=2),
        ParameterServer(compression=TopK(0.5)), LocalSGD(4, outer=SGD(0.7, momentum=0.9, nesterov=True)),
    ],
    ids=repr,
)  # fmt: skip
def test_between_any_two_the_run_goes_on_from_where_it_was(cluster, strategy):
    epochs, rows = 60, 490
    # Slow enough to be told in time, and one slower than the others.
    slow = [Slow(rank, factor) for rank, factor in enumerate((300, 100, 100))]
    run = started(strategy, epochs=epochs, validation=0.2, faults=slow, optimizer=SGD(0.05))
    told = [AllReduce(), strategy, AllReduce()]
    for following in told:
        run.update(strategy=following)
        assert run.state == "running", run.error
    for rank in range(RANKS):
        run.inject(Slow(rank, 1))
    run.wait(60)
    assert run.state == "finished"
    marks = [text for _, text in run.history.marks if text.startswith("strategy=")]
    assert marks == [f"strategy={following!r}" for following in told]
    losses, samples = run.history.evaluations["loss"], run.history.evaluations["samples"]
    assert losses[-1] < 0.8 * losses[0]
    assert losses.max() <= 1.05 * losses[0], "somewhere it began anew, or worse"
    assert (np.diff(samples) >= 0).all()
    assert abs(samples[-1] - epochs * rows) <= SHARDS, "rows were lost, or taken twice"


def test_a_run_ends_where_it_would_have(cluster):
    epochs, rows = 30, 613
    slow = [Slow(rank, 100) for rank in range(RANKS)]  # else it may be over before it is told
    run = started(ParameterServer(), epochs=epochs, faults=slow)
    run.update(strategy=AllReduce())
    run.update(strategy=ParameterServer())
    run.wait(60)
    samples = sum(run.history["samples"][run.history["rank"] == rank].max() for rank in range(RANKS))
    assert epochs * rows <= samples < epochs * rows + RANKS * BATCH
    assert run.state == "finished"


def test_what_cannot_be_is_refused_and_the_run_goes_on(cluster):
    run = started(AllReduce(), 2)
    for strategy, words in [
        (Serial(), "trains on 1 rank, not on 2"),
        (ParameterServer(servers=9), "9 servers for 8 parameters"),
    ]:
        with pytest.raises(ValueError, match=words):
            run.update(strategy=strategy, learning_rate=0.5)
    with pytest.raises(TypeError, match="must be a strategy"):
        run.update(strategy=AllReduce)
    assert run.history.changes == []
    some_steps(run)
    run.stop()
    run = started(AllReduce(), 2, optimizer=SGD(0.1, schedule="adaptive"))
    with pytest.raises(ValueError, match="adaptive"):
        run.update(strategy=ParameterServer())
    run.stop()


def test_those_who_go_on_may_fail_too(cluster):
    watch = Watch(cluster)
    run = started(AllReduce(), 2)
    run.update(strategy=ParameterServer())
    run.inject(Crash(1, 0))
    with pytest.raises(RunFailed, match=r"rank 1 on worker .* InjectedCrash"):
        run.wait(30)
    assert np.isfinite(run.params).all()
    watch.nothing_left()


@pytest.mark.parametrize(
    "strategy",
    [AllReduce(compression=TopK(0.25)), AllReduce(compression=PowerSGD(1)), LocalSGD(4, compression=TopK(0.25))],
    ids=repr,
)
def test_what_a_codec_has_not_sent_goes_on_to_the_same_codec(strategy):
    x, y, _ = made("multiclass")
    again = Command(1, "update", {"strategy": describe(strategy)})
    found = [
        harness.on_threads(
            MLP((5,), "tanh"),
            x,
            y,
            strategy=strategy,
            optimizer=SGD(0.1),
            batch_size=BATCH,
            epochs=4,
            commands=commands,
        )
        for commands in ([], [(20, again)])
    ]
    assert found[1].applied[1], "it was not told"
    assert_array_equal(found[0].params, found[1].params)


def test_what_a_codec_has_not_sent_goes_on_to_another_one():
    x, y, _ = made("binary")
    few, all_ = AllReduce(compression=TopK(0.2)), AllReduce(compression=TopK(1.0))
    told = Command(1, "update", {"strategy": describe(all_)})
    # With nothing but a penalty-free sum of gradients, which hardly change at this rate, what is sent in the end is all there was.
    settings = {"optimizer": SGD(1e-6), "batch_size": BATCH, "epochs": 3}
    dense = harness.on_threads(linear("binary"), x, y, strategy=AllReduce(), **settings).params
    late = harness.on_threads(linear("binary"), x, y, strategy=few, commands=[(20, told)], **settings)
    assert late.applied[1]
    close(late.params, dense, 1e-4)
    lossy = harness.on_threads(linear("binary"), x, y, strategy=few, **settings).params
    assert np.abs(lossy - dense).max() > 100 * np.abs(late.params - dense).max()
