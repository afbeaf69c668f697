"""Optimizers against closed forms and against straightforward references; `test_torch_optim.py` has PyTorch's."""

import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from optim_cases import ALGORITHMS, names, problem, run
from scaleml.arrays import PART
from scaleml.optim import SGD, AdaGrad, Adam, AdamW, CosineAnnealing, Group, Optimizer, StepDecay, Warmup, clip
from scaleml.runtime.serialization import describe, optimizer_from


def reference(optimizer, w, gradients):
    """The papers' and PyTorch's rules, one number at a time."""
    out = []
    for i, x in enumerate(w.tolist()):
        a = b = 0.0
        for t, gradient in enumerate(gradients, start=1):
            g = float(gradient[i])
            rate = optimizer.learning_rate
            if isinstance(optimizer, AdamW):
                x -= rate * optimizer.weight_decay * x
            else:
                g += optimizer.weight_decay * x
            if isinstance(optimizer, SGD):
                a = optimizer.momentum * a + g
                x -= rate * (g + optimizer.momentum * a if optimizer.nesterov else a)
            elif isinstance(optimizer, Adam | AdamW):
                a = optimizer.beta_1 * a + (1 - optimizer.beta_1) * g
                b = optimizer.beta_2 * b + (1 - optimizer.beta_2) * g * g
                m_hat, c = a / (1 - optimizer.beta_1**t), 1 - optimizer.beta_2**t
                if optimizer.epsilon_hat:
                    x -= rate * m_hat * math.sqrt(c) / (math.sqrt(b) + optimizer.epsilon)
                else:
                    x -= rate * m_hat / (math.sqrt(b / c) + optimizer.epsilon)
            else:
                a += g * g
                x -= rate * g / (math.sqrt(a) + optimizer.epsilon)
        out.append(x)
    return np.array(out)


@pytest.mark.parametrize(
    "optimizer",
    [*ALGORITHMS, Adam(0.1, 0.5, 0.6, 0.1), Adam(0.1, 0.5, 0.6, 0.1, epsilon_hat=True), AdaGrad(0.1, 0.5)],
    ids=names,
)
def test_reference(optimizer):
    w, gradients = problem()
    assert_allclose(run(optimizer, w, gradients)[0], reference(optimizer, w, gradients), rtol=1e-12)


@pytest.mark.parametrize("optimizer", ALGORITHMS, ids=names)
def test_float32_stays_float32(optimizer):
    w, gradients = problem(dtype="float32")
    found, state = run(optimizer, w, gradients, rate=np.float64(0.1))
    assert found.dtype == np.float32
    assert all(array.dtype == np.float32 for array in state.values())
    assert_array_equal(found, run(optimizer, w, gradients, rate=0.1)[0])
    assert_allclose(found, reference(optimizer, w, gradients), rtol=1e-4, atol=1e-5)


def test_closed_forms():
    """On the quadratic w^2/2, where the gradient is w, the iterates are powers of a known matrix."""
    w, state = np.array([1.0]), {}
    for t in range(1, 21):
        SGD(0.1).apply(w, w.copy(), state, t)
    assert_allclose(w, 0.9**20)

    optimizer = SGD(0.1, momentum=0.5)
    w, state = np.array([1.0]), optimizer.init(1, "f8")
    step = np.array([[1 - 0.1, -0.1 * 0.5], [1, 0.5]])  # of (w, v)
    for t in range(1, 21):
        optimizer.apply(w, w.copy(), state, t)
    expected = np.linalg.matrix_power(step, 20) @ [1, 0]
    assert_allclose([w[0], state["velocity"][0]], expected)

    w, state = np.zeros(1), AdaGrad(1.0).init(1, "f8")
    for t in range(1, 11):
        AdaGrad(1.0).apply(w, np.array([2.0]), state, t)
    assert_allclose(w, -sum(1 / math.sqrt(k) for k in range(1, 11)))

    w, state = np.zeros(1), Adam(0.1).init(1, "f8")
    for t in range(1, 11):
        Adam(0.1).apply(w, np.array([2.0]), state, t)
    assert_allclose(w, -1.0, rtol=1e-7)  # a constant gradient makes steps of the rate


@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("nesterov", [False, True])
def test_scikit_learns_form_is_the_same_at_a_constant_rate(momentum, nesterov):
    if nesterov and not momentum:
        return
    w, gradients = problem()
    found, _ = run(SGD(0.1, momentum, nesterov), w, gradients)
    v = np.zeros_like(w)
    for g in gradients:
        v = momentum * v - 0.1 * g
        w = w + (momentum * v - 0.1 * g if nesterov else v)
    assert_allclose(found, w, rtol=1e-12)


PARTITIONS = {
    "slices": [slice(0, 5), slice(5, 6), slice(6, 31)],
    "backwards": [slice(20, 31), slice(0, 20)],
    "strided": [slice(0, None, 2), slice(1, None, 2)],
    "indices": [np.array([30, 2, 7]), np.array([i for i in range(31) if i not in (30, 2, 7)])],
    "mixed": [slice(0, 10), np.arange(10, 31)[::-1]],
    "empty": [slice(0, 0), np.arange(0), slice(0, 31)],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("parts", PARTITIONS.values(), ids=PARTITIONS)
@pytest.mark.parametrize("optimizer", ALGORITHMS, ids=names)
def test_parts_give_the_bits_of_the_whole(optimizer, parts, dtype):
    w, gradients = problem(dtype=dtype)
    whole, whole_state = run(optimizer, w, gradients)
    state = optimizer.init(len(w), dtype)
    for t, g in enumerate(gradients, start=1):
        for where in parts:
            optimizer.apply(w, g[where].copy(), state, t, where=where)
    assert_array_equal(w, whole)
    for name, values in whole_state.items():
        assert_array_equal(state[name], values)


@settings(max_examples=60, deadline=None)
@given(
    optimizer=st.sampled_from(ALGORITHMS),
    owner=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_partition_gives_the_bits_of_the_whole(optimizer, owner, seed):
    rng = np.random.default_rng(seed)
    owner = np.array(owner)
    w = rng.standard_normal(len(owner)).astype("f4")
    gradients = rng.standard_normal((3, len(owner))).astype("f4")
    whole, _ = run(optimizer, w, gradients)
    state = optimizer.init(len(w), "f4")
    for t, g in enumerate(gradients, start=1):
        for rank in rng.permutation(4):
            where = np.flatnonzero(owner == rank)
            optimizer.apply(w, g[where], state, t, where=where)
    assert_array_equal(w, whole)


@pytest.mark.parametrize("optimizer", ALGORITHMS, ids=names)
def test_long_vectors_are_cut_without_a_trace(optimizer):
    w, gradients = problem(2 * PART + 17, 3, "float32")
    found, _ = run(optimizer, w, gradients)
    state = optimizer.init(len(w), "f4")
    for t, g in enumerate(gradients, start=1):
        optimizer.apply(w, g.copy(), state, t, where=np.arange(len(w)))
    assert_array_equal(found, w)


@pytest.mark.parametrize("optimizer", ALGORITHMS, ids=names)
def test_what_is_not_named_stays(optimizer):
    w, gradients = problem()
    state = optimizer.init(len(w), "f8")
    before = w.copy()
    optimizer.apply(w, gradients[0][3:5].copy(), state, 1, where=slice(3, 5))
    changed = np.flatnonzero(w != before)
    assert changed.tolist() == [3, 4]
    for values in state.values():
        assert np.flatnonzero(values).tolist() == [3, 4]


@pytest.mark.parametrize("optimizer", ALGORITHMS, ids=names)
def test_update_works_on_a_view_of_shared_memory(optimizer):
    w, gradients = problem()
    buffer = bytearray(w.nbytes)
    shared = np.frombuffer(buffer)
    shared[:] = w
    state = optimizer.init(len(w), "f8")
    optimizer.apply(shared, gradients[0].copy(), state, 1)
    assert_array_equal(np.frombuffer(buffer), run(optimizer, w, gradients[:1])[0])


# Settings

GROUPED = AdamW(
    0.1,
    schedule=Warmup(updates=7, then=StepDecay((3, 5))),
    groups=[Group("a*", learning_rate=0.3), Group(["b", "c"], weight_decay=0.5)],
    no_decay="*bias",
)


@pytest.mark.parametrize("optimizer", [*ALGORITHMS, SGD(clip_norm=2, schedule="optimal"), GROUPED], ids=names)
def test_settings(optimizer):
    assert isinstance(optimizer, Optimizer)
    assert optimizer_from(json.loads(json.dumps(describe(optimizer)))) == optimizer
    assert eval(repr(optimizer)) == optimizer
    assert pickle.loads(pickle.dumps(optimizer)) == optimizer
    assert hash(optimizer) == hash(replace(optimizer))
    state = optimizer.init(4, np.float32)
    assert all(state[name].shape == (4,) for name in optimizer.slots())
    assert not any(values.any() for values in state.values())
    assert repr(replace(optimizer, learning_rate=np.float64(0.5))) == repr(replace(optimizer, learning_rate=0.5))


def test_state_names():
    assert [sorted(optimizer.init(1, "f4")) for optimizer in ALGORITHMS[:6]] == [
        [],
        ["velocity"],
        ["velocity"],
        ["first_moment", "second_moment"],
        ["sum_of_squares"],
        ["first_moment", "second_moment"],
    ]
    assert sorted(SGD(schedule=CosineAnnealing()).init(1, "f4")) == ["schedule"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SGD(0), "learning_rate=0: must be a finite number greater than 0; change learning_rate"),
        (lambda: SGD("0.1"), "learning_rate='0.1': must be a finite number"),
        (lambda: SGD(math.nan), "learning_rate=nan"),
        (lambda: SGD(momentum=1), "momentum=1: must be a finite number at least 0 and below 1"),
        (lambda: SGD(nesterov=True), "nesterov=True with momentum=0: .* use momentum=0.9"),
        (lambda: SGD(schedule="step"), "schedule='step': must be one of 'constant', 'optimal'"),
        (lambda: Adam(beta_2=1.0), "beta_2=1.0: must be .* below 1"),
        (lambda: Adam(epsilon_hat=1), "epsilon_hat=1: must be True or False"),
        (lambda: Adam(epsilon=0), "epsilon=0: must be .* greater than 0"),
        (lambda: AdaGrad(epsilon=-1), "epsilon=-1: must be"),
        (lambda: AdaGrad(alpha=0), "alpha=0: must be"),
        (lambda: SGD(power_t=math.inf), "power_t=inf: must be a finite number; change power_t"),
        (lambda: SGD(clip_norm=0), "clip_norm=0: must be"),
        (lambda: SGD(tol=-1), "tol=-1: must be"),
        (lambda: SGD(weight_decay=-1), "weight_decay=-1: must be a finite number at least 0"),
        (lambda: AdamW(weight_decay=-1), "weight_decay=-1: must be a finite number at least 0"),
        (lambda: AdamW(groups=["*bias"]), "groups=.*must be a list such as .Group"),
        (lambda: AdamW(no_decay=[3]), "no_decay=.3.: must be a pattern of names such as"),
        (lambda: Group("*bias"), "sets nothing: give learning_rate, weight_decay, or both"),
        (lambda: Group("*bias", weight_decay=-1), "weight_decay=-1: must be"),
        (lambda: Group((), weight_decay=0), "names=..: must be a pattern"),
        (lambda: Warmup(epochs=1, updates=2), "epochs=1 with updates=2: one length, please"),
        (lambda: Warmup(epochs=0), "epochs=0: must be a finite number greater than 0"),
        (lambda: Warmup(updates=0.5), "updates=0.5: must be an integer"),
        (lambda: Warmup(then=CosineAnnealing), "then=.*must be a schedule such as"),
        (lambda: CosineAnnealing(minimum=2), "minimum=2: must be .* at most 1"),
        (lambda: CosineAnnealing(restarts=True), "restarts=True without a length"),
        (lambda: CosineAnnealing(3, restarts=True, growth=0.5), "growth=0.5: must be"),
        (lambda: StepDecay(30), "epochs=30: must be a tuple"),
        (lambda: SGD(n_iter_no_change=0), "n_iter_no_change=0: must be an integer of at least 1"),
        (lambda: clip(np.zeros(1), 0), "max_norm=0: must be greater than 0; use None"),
        (lambda: clip(np.zeros(1), math.nan), "max_norm=nan: must be greater than 0"),
    ],
)
def test_errors(make, words):
    with pytest.raises(ValueError, match=words):
        make()
