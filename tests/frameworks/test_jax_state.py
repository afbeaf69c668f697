"""State of functions of JAX: normalisation and dropout against a loop by hand, of plain functions and of the libraries that make them."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from frameworks.family import dense
from frameworks.jax_libraries import LIBRARIES, plain
from runtime import harness
from runtime.test_strategies import made
from runtime.test_train_state import spoil
from scaleml import SGD, Adam, JaxModel
from scaleml.models import Signature
from scaleml.models.buffers import Buffers
from scaleml.models.flat_model import Buffered, Weighing, with_buffers
from scaleml.runtime.commands import Command
from scaleml.runtime.serialization import describe
from scaleml.runtime.train_state import TrainState
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer, Serial

COLUMNS, BATCH, RATE = 7, 24, 0.1
X, Y, _ = made("multiclass", 96)
X = X.astype("f4")
CLASSES = Signature(COLUMNS, 3, "multiclass")


CASES = {one.__name__: cache(one) for one in LIBRARIES}


@cache
def model(case):
    apply, params, state = CASES[case]()
    return JaxModel(apply, params, "cross_entropy", state=state)


def trained(case, strategy, **settings):
    usual = {"optimizer": SGD(RATE), "batch_size": BATCH, "epochs": 2, "shards": 4, "simulated": True}
    return harness.on_threads(model(case), X, Y, strategy=strategy, **{**usual, **settings})


def noting(seen):
    """Return what has each gradient's place, rows and targets written into one list a rank."""

    def prepare(loop):
        network, rank, real = loop.rank.plan.model, loop.rank.world.rank, loop.rank.gradients._loss_grad

        def noted(w, x, y, *more):
            seen[rank].append((network._place, np.array(x), np.array(y)))
            return real(w, x, y, *more)

        loop.rank.gradients._loss_grad = noted

    return prepare


@cache
def gradient_of(case):
    def loss(params, state, x, y, key):
        outputs, after = CASES[case]()[0](params, state, x, key=key, train=True)
        return -jax.nn.log_softmax(outputs)[jnp.arange(len(y)), y].sum(), after

    return jax.jit(jax.grad(loss, has_aux=True))


def by_hand(case, seen):
    """Return the parameters, and each rank's state, of SGD over what the ranks have seen."""
    _, params, state = CASES[case]()
    gradient = gradient_of(case)
    states = [state] * len(seen)
    for parts in zip(*(one[1:] for one in seen), strict=True):  # without the warm-up's
        grads = []
        for rank, ((seed, step, place), x, y) in enumerate(parts):
            key = jax.random.key(seed)
            for number in (step, place, 1):
                key = jax.random.fold_in(key, number)
            grad, states[rank] = gradient(params, states[rank], x, y, key)
            grads.append(grad)
        params = jax.tree.map(lambda one, *own: one - RATE * sum(own) / BATCH, params, *grads)
    return params, states


def flat(tree, floats=True):
    leaves = [np.ravel(one) for one in jax.tree.leaves(tree)]
    return np.concatenate([one for one in leaves if (one.dtype.kind == "f") is floats] or [np.empty(0)])


@pytest.mark.parametrize(
    ("case", "ranks"), [(case, ranks) for case in CASES for ranks in (1, 2) if ranks == 2 or case != "plain"]
)
def test_training_is_a_loop_by_hand(case, ranks):
    """On two ranks each normalises over its own rows, and the state that is left is the mean."""
    seen = [[] for _ in range(ranks)]
    result = trained(
        case, AllReduce() if ranks > 1 else Serial(), workers=ranks, validation=(X, Y), prepare=noting(seen)
    )
    params, states = by_hand(case, seen)
    assert len(seen[0]) == 9
    assert_allclose(result.params, flat(params), rtol=1e-4, atol=1e-5)
    assert ranks == 1 or np.abs(flat(states[0]) - flat(states[1])).max() > 1e-3
    for outcome in result.outcomes:
        assert_allclose(outcome.buffers.values, np.mean([flat(one) for one in states], 0), rtol=1e-4, atol=1e-5)
        assert_array_equal(outcome.buffers.counts, flat(states[0], floats=False))
    network = with_buffers(model(case).build(CLASSES), result.outcomes[0].buffers)
    own, state = network.module(result.params)
    assert jax.tree.structure(own) == jax.tree.structure(params)
    outputs, _ = CASES[case]()[0](own, state, X, key=None, train=False)
    assert_allclose(network.scores(result.params, X), outputs, rtol=1e-4, atol=1e-5)
    mean = -np.asarray(jax.nn.log_softmax(outputs))[np.arange(len(Y)), Y].mean()
    assert_allclose(result.history.evaluations["loss"][-1], mean, rtol=1e-4)


@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(3)], ids=repr)
def test_what_is_restored_goes_on_with_the_same_bits(strategy):
    happened = set()

    def lose(loop):
        real, calls, network = loop.rank.take_step, [], loop.rank.plan.model

        def take_step():
            real()
            calls.append(loop.rank.step)
            if len(calls) == 3:
                kept = loop.rank.snapshot().to_bytes()
                spoil(loop.rank.state)
                network.set_buffers(Buffers(network.buffers().values * np.nan, network.buffers().counts + 5))
                loop.rank.restore(TrainState.from_bytes(kept))
                happened.add(loop.rank.world.rank)

        loop.rank.take_step = take_step

    undisturbed, restored = (trained("plain", strategy, optimizer=Adam(0.01), prepare=one) for one in (None, lose))
    assert happened == {0, 1}
    assert_array_equal(restored.params, undisturbed.params)
    for mine, theirs in zip(restored.outcomes, undisturbed.outcomes, strict=True):
        assert_array_equal(mine.buffers.values, theirs.buffers.values)
        assert mine.buffers.counts.tolist() == theirs.buffers.counts.tolist() == [1, 8]


def test_a_switch_of_strategy_takes_it_along():
    switch = Command(1, "update", {"strategy": describe(LocalSGD(2))})
    after = trained("plain", AllReduce(), commands=[(2, switch)])
    assert after.applied[1]
    handed = trained("plain", AllReduce(), commands=[(2, Command(1, "switch", {}))])
    assert [one.status for one in handed.outcomes] == ["switched"] * 2
    others = trained("plain", ParameterServer("bsp"), before=handed.outcomes)
    assert after.outcomes[0].buffers.counts.tolist() == others.outcomes[0].buffers.counts.tolist() == [1, 8]


def test_settings():
    apply, params, state = plain()
    own = JaxModel(apply, params, lambda outputs, y: outputs.mean(), state=state, buffers="rank0")
    assert repr(own) == "JaxModel(apply, ..., loss=<lambda>, state=..., buffers='rank0')"
    network = own.build(CLASSES)
    assert isinstance(network, Buffered)
    assert network.buffer_rule == "rank0"
    assert isinstance(network, Weighing)
    assert "return a loss for each row" in network.why_no_weights, (
        "so that weights are refused before anything is placed"
    )
    without = JaxModel(
        lambda params, state, x: (x @ params, state), dense(COLUMNS, 3)["kernel"], "cross_entropy", state={}
    )
    assert not len(without.build(CLASSES).first_buffers())


def column(params, state, x):
    return x @ params


W, ZERO = dense(COLUMNS, 3)["kernel"], {"mean": np.zeros(3, "f4")}


def after(change):
    """Return a function that changes its state so."""
    return lambda params, state, x: (x @ params, change(state["mean"]))


MISTAKES = {
    "outputs alone": (column, ZERO, {}, "with state it must return two"),
    "state of another name": (after(lambda mean: {"var": mean}), ZERO, {}, "a state of 'var', but was given one of 'mean'"),
    "state of another shape": (after(lambda mean: {"mean": mean.sum()}), ZERO, {}, r"'mean' of its state as float32 of shape \(\), but"),
    "state of another kind": (after(lambda mean: {"mean": jnp.arange(3)}), ZERO, {}, "as int32 of shape .* but was given float32"),
    "no state given": (lambda params, x: (x @ params, x), None, {}, "returns a tuple.*for the next step is state="),
    "a function": (column, lambda key: ZERO, {}, "state is a function: must be a pytree of arrays"),
    "a number": (column, {"rate": 0.5}, {}, "state has a float at 'rate': all leaves must be arrays"),
    "a key": (column, {"k": jax.random.key(0)}, {}, "key of random numbers at 'k'.*a parameter called key"),
    "half precision": (column, {"m": jnp.zeros(3, "bfloat16")}, {}, "state has bfloat16 at 'm', but dtype='float32'"),
    "complex numbers": (column, {"m": np.zeros(3, "c8")}, {}, "complex64 at 'm': must be floats"),
    "another rule": (column, ZERO, {"buffers": "mean"}, "buffers='mean'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    apply, state, more, words = MISTAKES[name]
    with pytest.raises((TypeError, ValueError), match=f"(?s){words}") as caught:
        JaxModel(apply, W, "cross_entropy", state=state, **more).build(CLASSES)
    assert "does not take these rows" not in str(caught.value)
