"""Optimizers against closed forms, against straightforward references, and against PyTorch where it is."""

import itertools
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import SGDRegressor

from scaleml.optim import SGD, AdaGrad, Adam, Optimizer, clip
from scaleml.optim.base import CHUNK

ALGORITHMS = [SGD(0.1), SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.8, nesterov=True), Adam(0.1), AdaGrad(0.1)]
SCHEDULES = ["constant", "optimal", "invscaling", "adaptive"]


def names(value):
    return repr(value)


def run(optimizer, w, gradients, **kwargs):
    """Return the parameters and the state after one update a gradient, all from copies."""
    w = w.copy()
    state = optimizer.init(len(w), w.dtype)
    for t, g in enumerate(gradients, start=1):
        optimizer.apply(w, g.copy(), state, t, **kwargs)
    return w, state


def problem(size=31, steps=12, dtype="float64"):
    rng = np.random.default_rng(0)
    return rng.standard_normal(size).astype(dtype), list(rng.standard_normal((steps, size)).astype(dtype))


def reference(optimizer, w, gradients):
    """The papers' and PyTorch's rules, one number at a time."""
    out = []
    for i, x in enumerate(w.tolist()):
        a = b = 0.0
        for t, gradient in enumerate(gradients, start=1):
            g = float(gradient[i])
            rate = optimizer.learning_rate
            if isinstance(optimizer, SGD):
                a = optimizer.momentum * a + g
                x -= rate * (g + optimizer.momentum * a if optimizer.nesterov else a)
            elif isinstance(optimizer, Adam):
                a = optimizer.beta_1 * a + (1 - optimizer.beta_1) * g
                b = optimizer.beta_2 * b + (1 - optimizer.beta_2) * g * g
                m_hat, v_hat = a / (1 - optimizer.beta_1**t), b / (1 - optimizer.beta_2**t)
                x -= rate * m_hat / (math.sqrt(v_hat) + optimizer.epsilon)
            else:
                a += g * g
                x -= rate * g / (math.sqrt(a) + optimizer.epsilon)
        out.append(x)
    return np.array(out)


@pytest.mark.parametrize("optimizer", [*ALGORITHMS, Adam(0.1, 0.5, 0.6, 0.1), AdaGrad(0.1, 0.5)], ids=names)
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


@pytest.mark.parametrize("optimizer", ALGORITHMS, ids=names)
def test_pytorch(optimizer):
    torch = pytest.importorskip("torch")
    w, gradients = problem()
    parameter = torch.nn.Parameter(torch.tensor(w))
    if isinstance(optimizer, SGD):
        theirs = torch.optim.SGD([parameter], lr=0.1, momentum=optimizer.momentum, nesterov=optimizer.nesterov)
    elif isinstance(optimizer, Adam):
        theirs = torch.optim.Adam([parameter], lr=0.1)
    else:
        theirs = torch.optim.Adagrad([parameter], lr=0.1)
    for g in gradients:
        parameter.grad = torch.tensor(g)
        theirs.step()
    assert_allclose(run(optimizer, w, gradients)[0], parameter.detach().numpy(), rtol=1e-12)


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
    w, gradients = problem(2 * CHUNK + 17, 3, "float32")
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


# The schedules


def rates(optimizer, steps=40):
    state = optimizer.init(1, "f8")
    return np.array([optimizer.rate(t, state) for t in range(1, steps + 1)])


@pytest.mark.parametrize("schedule", ["constant", "optimal", "invscaling"])
def test_rates_are_those_of_scikit_learns_sgd(schedule):
    """One pass of SGDRegressor, replayed row by row with our rates and its own alpha."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 3)), rng.standard_normal(40)
    alpha, eta0, power_t = 0.01, 0.05, 0.3
    theirs = SGDRegressor(
        penalty=None, alpha=alpha, learning_rate=schedule, eta0=eta0, power_t=power_t, fit_intercept=False,
        shuffle=False, max_iter=1, tol=None,
    )  # fmt: skip
    theirs.fit(x, y)
    ours = SGD(eta0, schedule=schedule, power_t=power_t, alpha=alpha)
    w, state = np.zeros(3), ours.init(3, "f8")
    for t, (row, target) in enumerate(zip(x, y, strict=True), start=1):
        ours.apply(w, (row @ w - target) * row, state, t)
    assert_allclose(w, theirs.coef_, rtol=1e-9)


def test_formulas_and_scale():
    assert_allclose(rates(SGD(0.3)), 0.3)
    assert_allclose(rates(SGD(0.3, schedule="invscaling", power_t=0.25)), 0.3 / np.arange(1, 41) ** 0.25)
    typical = math.sqrt(1 / math.sqrt(1e-3))
    t0 = 1 / (typical * 1e-3)
    assert_allclose(rates(SGD(schedule="optimal", alpha=1e-3)), 1 / (1e-3 * (t0 + np.arange(40))))
    for schedule in SCHEDULES:
        optimizer = Adam(0.3, schedule=schedule)
        state = optimizer.init(1, "f8")
        assert_allclose(optimizer.rate(7, state, 0.5), 0.5 * optimizer.rate(7, state))
        assert type(optimizer.rate(7, state)) is float


def test_adaptive_divides_when_the_loss_stalls():
    optimizer = SGD(0.5, schedule="adaptive", tol=0.01, n_iter_no_change=2)
    state = optimizer.init(3, "f4")
    assert sorted(state) == ["schedule"]
    assert state["schedule"].dtype == np.float64
    assert state["schedule"].shape == (3,)
    found = []
    for loss in (1.0, 0.9, 0.895, 0.894, 0.893, 0.5, 0.495, 0.6, 0.7, 0.7):
        optimizer.observe_epoch(loss, state)
        found.append(optimizer.rate(1, state))
    assert_allclose(found, [0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.02, 0.02, 0.004])
    assert_allclose(replace(optimizer, learning_rate=5.0).rate(1, state), 0.04)


def test_adaptive_stops_dividing_at_a_millionth_and_survives_nan():
    optimizer = SGD(1.0, schedule="adaptive", n_iter_no_change=1)
    state = optimizer.init(1, "f8")
    for _ in range(50):
        optimizer.observe_epoch(1.0, state)
    assert_allclose(optimizer.rate(1, state), 5.0**-9)
    other = optimizer.init(1, "f8")
    optimizer.observe_epoch(math.nan, other)
    optimizer.observe_epoch(0.5, other)
    assert other["schedule"][1] == 0.5


def test_adaptive_is_scikit_learns():
    """The rate at which SGDRegressor ends is ours after the same epoch losses."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 3))
    y = x @ [1, 2, 3] + 0.5 * rng.standard_normal(50)
    kwargs = {"penalty": None, "learning_rate": "adaptive", "eta0": 0.05, "shuffle": False, "fit_intercept": False}
    kwargs |= {"tol": 1e-3, "n_iter_no_change": 3, "max_iter": 1000}
    theirs = SGDRegressor(**kwargs).fit(x, y)
    ours = SGD(0.05, schedule="adaptive", n_iter_no_change=3)
    w, state, t = np.zeros(3), ours.init(3, "f8"), 0
    for _ in range(theirs.n_iter_):
        total = 0.0
        for row, target in zip(x, y, strict=True):
            t += 1
            error = row @ w - target
            total += error**2 / 2
            ours.apply(w, error * row, state, t)
        ours.observe_epoch(total / 50, state)
    assert ours.rate(1, state) < 0.05 / 100
    assert_allclose(w, theirs.coef_, rtol=1e-6)


@pytest.mark.parametrize(("optimizer", "schedule"), list(itertools.product(ALGORITHMS, SCHEDULES)), ids=names)
def test_every_rule_takes_every_schedule(optimizer, schedule):
    w, gradients = problem()
    optimizer = replace(optimizer, schedule=schedule)
    found, state = run(optimizer, w, gradients[:3])
    state = optimizer.init(len(w), "f8")
    for t, g in enumerate(gradients[:3], start=1):
        optimizer.apply(w, g.copy(), state, t, rate=optimizer.rate(t, state))
        optimizer.observe_epoch(1.0, state)
    assert_array_equal(w, found)


# Clipping


def test_clip():
    g = np.array([3.0, 4.0])
    assert clip(g, 10) == 5
    assert g.tolist() == [3, 4]
    assert clip(g, 1) == 5
    assert_allclose(g, [0.6, 0.8])
    assert clip(np.zeros(3), 1) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clip_where_squares_overflow(dtype):
    top = np.finfo(dtype).max / 4
    g = np.array([top, -top], dtype)
    with np.errstate(over="ignore"):
        assert_allclose(clip(g, 1.0), math.sqrt(2) * float(top), rtol=1e-6)
    assert_allclose(g, [math.sqrt(0.5), -math.sqrt(0.5)], rtol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clip_leaves_what_is_not_finite(bad):
    g = np.array([1.0, bad])
    assert not math.isfinite(clip(g, 0.1))
    assert_array_equal(g, [1.0, bad])


@pytest.mark.parametrize("optimizer", ALGORITHMS, ids=names)
def test_clipping_is_left_to_who_holds_the_whole_gradient(optimizer):
    w, gradients = problem()
    assert_array_equal(run(replace(optimizer, clip_norm=0.5), w, gradients)[0], run(optimizer, w, gradients)[0])
    scaled = [g * (0.5 / np.linalg.norm(g)) for g in gradients]
    for g in gradients:
        clip(g, 0.5)
    assert_allclose(run(optimizer, w, gradients)[0], run(optimizer, w, scaled)[0], rtol=1e-12)


# Settings


@pytest.mark.parametrize("optimizer", [*ALGORITHMS, SGD(clip_norm=2, schedule="optimal")], ids=names)
def test_settings(optimizer):
    assert isinstance(optimizer, Optimizer)
    assert eval(repr(optimizer)) == optimizer
    assert pickle.loads(pickle.dumps(optimizer)) == optimizer
    assert hash(optimizer) == hash(replace(optimizer))
    state = optimizer.init(4, np.float32)
    assert all(values.shape == (4,) and not values.any() for values in state.values())
    assert repr(replace(optimizer, learning_rate=np.float64(0.5))) == repr(replace(optimizer, learning_rate=0.5))


def test_state_names():
    assert [sorted(optimizer.init(1, "f4")) for optimizer in ALGORITHMS] == [
        [],
        ["velocity"],
        ["velocity"],
        ["first_moment", "second_moment"],
        ["sum_of_squares"],
    ]


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
        (lambda: Adam(epsilon=0), "epsilon=0: must be .* greater than 0"),
        (lambda: AdaGrad(epsilon=-1), "epsilon=-1: must be"),
        (lambda: AdaGrad(alpha=0), "alpha=0: must be"),
        (lambda: SGD(power_t=math.inf), "power_t=inf: must be a finite number; change power_t"),
        (lambda: SGD(clip_norm=0), "clip_norm=0: must be"),
        (lambda: SGD(tol=-1), "tol=-1: must be"),
        (lambda: SGD(n_iter_no_change=0), "n_iter_no_change=0: must be an integer of at least 1"),
        (lambda: clip(np.zeros(1), 0), "max_norm=0: must be greater than 0; use None"),
        (lambda: clip(np.zeros(1), math.nan), "max_norm=nan: must be greater than 0"),
    ],
)
def test_errors(make, words):
    with pytest.raises(ValueError, match=words):
        make()
