"""L-BFGS and its line search against SciPy's, and against what they promise."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize, rosen, rosen_der

from scaleml.optim import LBFGS
from scaleml.optim.lbfgs import GRADIENT, ITERATIONS, LINE, LOSS
from scaleml.optim.line_search import LineSearch


def logistic(columns=6, rows=200):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((rows, columns)) * np.geomspace(1, 3, columns)
    sign = np.sign(x @ rng.standard_normal(columns) + rng.standard_normal(rows))

    def objective(w):
        margin = sign * (x @ w)
        slopes = -sign / (1 + np.exp(margin))
        return float(np.logaddexp(0, -margin).mean() + 0.005 * w @ w), x.T @ slopes / rows + 0.01 * w

    return objective, np.zeros(columns)


PROBLEMS = {
    "logistic": logistic(),
    "Rosenbrock": (lambda w: (float(rosen(w)), rosen_der(w)), np.array([-1.2, 1.0, 0.5, 2.0])),
    "quartic": (lambda w: (float((w**4).sum() / 4 + w.sum()), w**3 + 1), np.array([3.0, -5.0])),
}


def descend(rule, objective, start, dtype="float64"):
    """Return where the rule ends, its state, and the losses of all evaluations."""
    w = start.astype(dtype)
    state, losses = rule.init(len(w), w.dtype), []
    while not rule.ended(state) and len(losses) < 500:
        loss, g = objective(w.astype("float64"))
        losses.append(loss)
        rule.search(w, g.astype(dtype), loss, state, rule.learning_rate)
    return w, state, losses


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("memory", [3, 10])
def test_it_goes_scipys_way(problem, memory):
    objective, start = PROBLEMS[problem]
    seen = []
    options = {"gtol": 1e-6, "ftol": 1e-14, "maxls": 50, "maxcor": memory, "maxiter": 200}

    def watched(w):
        loss, g = objective(w)
        seen.append(loss)
        return loss, g

    theirs = minimize(watched, start, method="L-BFGS-B", jac=True, options=options)
    rule = LBFGS(tol=1e-6, ftol=1e-14, memory=memory, max_iter=200)
    w, state, losses = descend(rule, objective, start)
    assert (rule.iterations(state), len(losses)) == (theirs.nit, theirs.nfev)
    assert_allclose(losses[:12], seen[:12], rtol=1e-9)  # step by step, while rounding has not grown
    assert_allclose(w, theirs.x, atol=1e-6)
    assert rule.objective(state) == pytest.approx(theirs.fun, abs=1e-12)
    assert_array_equal(rule.result(w, state, 1), w)


def test_why_it_ends():
    objective, start = PROBLEMS["logistic"]
    best, _, _ = descend(LBFGS(tol=1e-10), objective, start)
    for rule, begin, why in [
        (LBFGS(tol=1e-3), start, GRADIENT),
        (LBFGS(tol=10.0), start, GRADIENT),
        (LBFGS(tol=0.0, ftol=1e-3), start, LOSS),
        (LBFGS(max_iter=3), start, ITERATIONS),
        (LBFGS(tol=0.0, ftol=0.0), best, LOSS),
    ]:
        w, state, _ = descend(rule, objective, begin)
        assert rule.ended(state) == why
        before = w.copy()
        rule.search(w, np.ones(len(w)), 0.0, state, 1.0)  # what has ended stays
        assert_array_equal(w, before)
    # The one trial that it may take goes uphill: it says so, and stays where it began.
    w, state, losses = descend(LBFGS(max_trials=1), lambda w: (float(w @ w), -2 * w), np.ones(2))
    assert LBFGS().ended(state) == LINE
    assert_array_equal(w, np.ones(2))
    assert len(losses) == 2


def test_a_copy_of_the_state_goes_on_with_the_same_bits():
    objective, start = PROBLEMS["Rosenbrock"]
    rule, w = LBFGS(tol=1e-8), start.copy()
    state = rule.init(len(w), w.dtype)
    ways = []
    for step in range(60):
        if step == 17:
            ways = [(w.copy(), copy.deepcopy(state))]
        for place, slots in [(w, state), *ways]:
            loss, g = objective(place)
            rule.search(place, g, loss, slots, 1.0)
    assert_array_equal(ways[0][0], w)
    assert rule.ended(state) == rule.ended(ways[0][1]) > 0


def test_float32_parameters_are_those_of_float64_rounded():
    objective, start = PROBLEMS["logistic"]
    w, state, _ = descend(LBFGS(), objective, start, "float32")
    exact, _, _ = descend(LBFGS(), objective, start)
    assert w.dtype == np.float32
    assert all(array.dtype == np.float64 for array in state.values())
    assert_allclose(w, exact, atol=2e-4)


def test_a_line_search_finds_what_satisfies_wolfes_conditions():
    rng, found, longest = np.random.default_rng(0), 0, 0
    for _ in range(300):
        a, b, c, d, pace = *rng.standard_normal(4), rng.uniform(0.3, 3)
        loss = lambda s: a * np.sin(pace * s + b) + 0.2 * abs(c) * (s - 3 * d) ** 2  # noqa: B023, E731
        slope = lambda s: a * pace * np.cos(pace * s + b) + 0.4 * abs(c) * (s - 3 * d)  # noqa: B023, E731
        if slope(0) >= 0:
            continue
        search = LineSearch.begin(loss(0), slope(0), float(rng.choice([0.01, 0.3, 1, 5])))
        while search.tell(loss(search.step), slope(search.step)) != "done":
            again = np.empty(16)
            search.save(again)
            search = LineSearch.load(again)
            assert search.evaluations < 30
        found += 1
        longest = max(longest, int(search.evaluations))
        assert loss(search.step) <= loss(0) + 1e-3 * search.step * slope(0)
        assert abs(slope(search.step)) <= 0.9 * -slope(0)
    assert found > 100
    assert longest > 3


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"tol": -1}, "tol"), ({"memory": 0}, "memory"), ({"max_iter": 1.5}, "max_iter"), ({"ftol": np.nan}, "ftol")],
)
def test_settings_are_checked(settings, says):
    with pytest.raises(ValueError, match=says):
        LBFGS(**settings)
