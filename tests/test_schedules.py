"""Learning-rate schedules against scikit-learn's, and clipping."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import SGDRegressor

from optim_cases import ALGORITHMS, SCHEDULES, begun, names, problem, run
from scaleml.optim import SGD, Adam, clip

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
        state = begun(optimizer, 1, "f8")
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
    state = begun(optimizer, len(w), "f8")
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
