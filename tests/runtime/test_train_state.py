"""The train state: what is restored goes on with the bits of what was kept, under every strategy; parts become a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.sparse import csr_matrix

from family.strategies import STRATEGIES
from optim_cases import GROUPED
from runtime import harness
from scaleml.api.in_process import Shuffled
from scaleml.compression import PowerSGD, TopK
from scaleml.faults import Slow
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD, AdaGrad, Adam
from scaleml.runtime.best_parameters import BestParameters
from scaleml.runtime.parameter_server.server_loop import ServerLoop
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.train_state import StoppingState, TrainState
from scaleml.runtime.training_loop import TrainingLoop
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer

RANKS, BATCH, EPOCHS = 3, 24, 3
FAMILY = [
    *STRATEGIES,
    AllReduce(compression=TopK(0.25)),
    AllReduce(compression=PowerSGD(1)),
    AllReduce(overlap=True),
    LocalSGD(3, outer=SGD(0.7, momentum=0.9, nesterov=True)),
    LocalSGD(3, compression=TopK(0.5)),
    LocalSGD(4, start_after=3),
    LocalSGD(None),
]
RULES = [SGD(0.2, momentum=0.9), Adam(0.01), AdaGrad(0.1), GROUPED]
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((150, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)

Loop = TrainingLoop | ServerLoop


def spoil(state: TrainState) -> None:
    """Leave nothing of a state as it was."""
    state.params[...] = np.nan
    for array in state.arrays.values():
        array[...] = 7
    if state.arrays:
        del state.arrays[next(iter(state.arrays))]
    state.arrays["compression.residual of nobody"] = np.ones(3)
    for one in fields(TrainState):
        value = getattr(state, one.name)
        if isinstance(value, bool):
            setattr(state, one.name, not value)
        elif isinstance(value, int | float) and one.name != "start":
            setattr(state, one.name, value + 3)
    state.optimizer, state.faults, state.stopping = SGD(99.0), (Slow(0, 2),), StoppingState(stale=50, converged=True)
    state.best = BestParameters(-99.0, 77, np.zeros(1))


def spoiled_and_restored(step: int, happened: set[int]) -> Callable[[Loop], None]:
    """Return what has each rank lose its state after step ``step``, and get it back from bytes; a server counts its messages."""

    def prepare(loop: Loop) -> None:
        owner = loop if isinstance(loop, ServerLoop) else loop.rank
        real, calls = loop.strategy.serve if isinstance(loop, ServerLoop) else loop.rank.take_step, [0]

        def lose() -> None:
            calls[0] += 1
            if calls[0] == step:
                kept = owner.snapshot().to_bytes()
                spoil(owner.state)
                owner.restore(TrainState.from_bytes(kept))
                happened.add(owner.world.rank)

        def take_step() -> None:
            real()
            lose()

        if isinstance(loop, TrainingLoop):
            loop.rank.take_step = take_step
        else:
            loop.strategy = Serving(loop.strategy, lose)

    return prepare


class Serving:
    """A server's strategy, and what is done after each of its messages."""

    def __init__(self, strategy: ParameterServer, after: Callable[[], None]) -> None:
        self.strategy, self.after = strategy, after

    def serve(self, w: np.ndarray, state: dict[str, np.ndarray], ctx: ServerLoop) -> None:
        """Take in one message."""
        self.strategy.serve(w, state, ctx)
        self.after()


def take_turns(loop: TrainingLoop) -> None:
    """Have a step take virtual time: ranks that only share memory would otherwise never wait, and the first do all the work."""
    take_step = loop.rank.take_step

    def last_a_while() -> None:
        take_step()
        loop.rank.world.clock.sleep(1e-3)

    loop.rank.take_step = last_a_while


def best_of(result: harness.Result) -> np.ndarray:
    """Return the parameters of the best evaluation; in an outcome they are missing where they are those that it gives out."""
    outcome = result.outcomes[0]
    return outcome.params if outcome.best.params is None else outcome.best.params


def trained(strategy: object, prepare: Callable[[Loop], None] | None = None, **more: object) -> harness.Result:
    usual = {
        "optimizer": SGD(0.2, momentum=0.9),
        "workers": RANKS,
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "simulated": True,
    }
    model = MLP((4,), dtype="float64")

    def prepared(loop: Loop) -> None:
        if prepare is not None:
            prepare(loop)
        if isinstance(loop, TrainingLoop):
            take_turns(loop)

    return harness.on_threads(model, X, Y, strategy=strategy, prepare=prepared, validation=(X, Y), **{**usual, **more})


@pytest.mark.parametrize("strategy", FAMILY, ids=repr)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(1, 12), optimizer=st.sampled_from(RULES))
def test_what_is_restored_goes_on_with_the_same_bits(strategy, step, optimizer):
    undisturbed = trained(strategy, optimizer=optimizer)
    happened: set[int] = set()
    restored = trained(strategy, spoiled_and_restored(step, happened), optimizer=optimizer)
    # Ranks that share memory share the steps as well: there are seven for each.
    assert happened == set(range(strategy.layout(RANKS).size)) or (strategy.shares_memory and step > 5)
    assert np.isfinite(restored.params).all()
    assert_array_equal(restored.params, undisturbed.params)
    for name, values in undisturbed.history.evaluations.items():
        assert_array_equal(restored.history.evaluations[name], values, name)
    assert_array_equal(best_of(restored), best_of(undisturbed))


def test_what_early_stopping_has_seen_comes_back():
    rule = StopRule(tol=1e-2, n_iter_no_change=2, monitor="score", keep_best=True)
    usual = trained(AllReduce(), epochs=60, stop=rule)
    restored = trained(AllReduce(), spoiled_and_restored(20, set()), epochs=60, stop=rule)
    assert 3 < usual.outcomes[0].epochs < 60
    assert (restored.outcomes[0].epochs, restored.outcomes[0].losses) == (
        usual.outcomes[0].epochs,
        usual.outcomes[0].losses,
    )
    assert_array_equal(restored.params, usual.params)


@pytest.mark.parametrize("strategy", [one for one in FAMILY if one.synchronous], ids=repr)
def test_other_ranks_go_on_from_it_with_the_same_bits(strategy):
    # New loops, new communicators: nothing but the states and the data connects them. What recovery and checkpoints rest on.
    undisturbed = trained(strategy)
    states: dict[int, bytes] = {}

    def keep(loop: TrainingLoop) -> None:
        real = loop.rank.take_step

        def take_step() -> None:
            real()
            if loop.rank.step == 5:
                states[loop.rank.world.rank] = loop.rank.snapshot().to_bytes()

        loop.rank.take_step = take_step

    def take_up(loop: TrainingLoop) -> None:
        loop.rank.restore(TrainState.from_bytes(states[loop.rank.world.rank]))

    trained(strategy, keep)
    assert_array_equal(trained(strategy, take_up).params, undisturbed.params)


def test_a_random_order_of_rows_comes_back():
    data = np.arange(20.0)[:, None], np.arange(20.0), None
    batches = Shuffled(data, np.random.RandomState(3))
    batches.take(0, 8)
    kept = TrainState(np.zeros(1), random=batches.random_state()).to_bytes()
    rest = [batches.take(*place)[1].tolist() for place in ((8, 8), (16, 4), (0, 8), (8, 8))]
    other = Shuffled(data, np.random.RandomState(9))
    other.set_random_state(TrainState.from_bytes(kept).random)
    assert [other.take(*place)[1].tolist() for place in ((8, 8), (16, 4), (0, 8), (8, 8))] == rest


def whole_state() -> TrainState:
    return TrainState(
        params=np.arange(6.0),
        arrays={
            "m": np.arange(6.0) * 2,
            "schedule": np.array([5.0, np.inf, 2.0]),
            "compression.residual 0": np.ones(6),
        },
        updates=7,
        rows=70.5,
        step=9,
        consumed=140,
        samples=70,
        epoch_loss=0.25,
        epoch_weight=3.0,
        clock=1.5,
        committed=False,
        optimizer=Adam(0.01),
        batch_size=20,
        faults=(Slow(1, 4, step=3),),
        commands=2,
        stopping=StoppingState(0.5, 1, 2, False, [0.9, 0.5], [0.1]),
        evaluations=5,
        best=BestParameters(0.25, 3, np.arange(6.0) / 2),
        random={"order": np.arange(4)},
        replicated=False,
    )


def test_bytes_say_all_of_it():
    state = whole_state()
    assert_equal_states(TrainState.from_bytes(state.to_bytes()), state)
    assert not state.to_bytes().startswith(b"\x80"), "a pickle"


def test_bytes_refuse_what_could_not_be_found_by_its_name():
    state = whole_state()
    state.faults = (object(),)
    with pytest.raises(ValueError, match="of no class of scaleml's own"):
        state.to_bytes()


def test_a_snapshot_is_left_alone():
    state = whole_state()
    kept = state.snapshot()
    spoil(state)
    assert_equal_states(kept, whole_state())


@pytest.mark.parametrize(("replicated", "committed"), [(True, True), (True, False), (False, True), (False, False)])
def test_private_is_what_no_other_rank_has(replicated, committed):
    names = ["velocity", "outer.anchor", "compression.residual 0"]
    state = TrainState(np.zeros(2), {name: np.zeros(2) for name in names}, replicated=replicated, committed=committed)
    expected = (
        {"compression.residual 0"} | (set() if replicated else {"velocity"}) | (set() if committed else {"params"})
    )
    assert state.private == expected


def test_slices_become_a_whole_and_a_whole_slices():
    whole = whole_state()
    del whole.arrays["compression.residual 0"]
    parts = []
    for start, stop in ((4, 6), (0, 4)):
        part = TrainState(np.zeros(stop - start), {"m": np.zeros(stop - start), "schedule": np.zeros(3)}, start)
        part.resume(whole)
        assert_array_equal(part.params, whole.params[start:stop])
        assert_array_equal(part.arrays["m"], whole.arrays["m"][start:stop])
        assert_array_equal(part.best.params, whole.best.params[start:stop])
        parts.append(part)
    merged = TrainState.merge(parts)
    for name in ("m", "schedule"):
        assert_array_equal(merged.arrays[name], whole.arrays[name])
    assert_array_equal(merged.params, whole.params)
    assert_array_equal(merged.best.params, whole.best.params)
    assert merged.best.evaluation == whole.best.evaluation == 3
    assert (merged.updates, merged.rows, merged.step) == (whole.updates, whole.rows, whole.step)
    with pytest.raises(ValueError, match="in none of the states, or in two of them"):
        TrainState.merge([parts[0], TrainState(np.zeros(2), {"m": np.zeros(2), "schedule": np.zeros(3)}, 0)])


def test_a_warm_start_leaves_out_what_is_of_its_run():
    state = TrainState(np.zeros(6), {"m": np.zeros(6)})
    state.resume(whole_state().warm_start())
    assert "compression.residual 0" not in state.arrays, "this one has no codec"
    assert (state.updates, state.rows, state.step, state.consumed, state.commands) == (7, 70.5, 0, 0, 0)


def test_a_linear_model_on_csr_goes_on_through_its_servers_decay():
    rows = RANDOM.random((120, 30)) * (RANDOM.random((120, 30)) < 0.1)
    sparse = csr_matrix(rows)
    labels = (rows.sum(axis=1) > 1.4).astype(int)
    settings_ = {
        "strategy": ParameterServer(servers=2), "optimizer": SGD(0.5), "workers": 2, "epochs": 3, "batch_size": 20, "simulated": True,
    }  # fmt: skip
    model = LinearModel(alpha=0.01, dtype="float64")
    undisturbed = harness.on_threads(model, sparse, labels, **settings_)
    restored = harness.on_threads(model, sparse, labels, prepare=spoiled_and_restored(7, set()), **settings_)
    assert_array_equal(restored.params, undisturbed.params)


def assert_equal_states(state: TrainState, other: TrainState) -> None:
    for one in fields(TrainState):
        mine, theirs = getattr(state, one.name), getattr(other, one.name)
        if one.name == "params":
            assert_array_equal(mine, theirs)
        elif one.name in ("arrays", "random"):
            assert mine.keys() == theirs.keys()
            for name in mine:
                assert mine[name].dtype == theirs[name].dtype
                assert_array_equal(mine[name], theirs[name], name)
        elif one.name in ("stopping", "best"):
            for part in fields(mine):
                assert_array_equal(getattr(mine, part.name), getattr(theirs, part.name), part.name)
        else:
            assert mine == theirs, one.name
