"""Steps of scikit-learn's size for batches."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix

from scaleml.models import LinearModel, Signature
from scaleml.optim import SGD, Averaged, Columns, RowRate, RowSteps

N, F = 400, 5


def made(x, rate, batch=20, **more):
    settings = {"seed": 0, "intercept": True, "curvature": 1.0, "dtype": "float64"} | more
    return RowSteps.measured(x, Columns(x.shape[1]).add(x), rate, batch, x.shape[0], **settings)


def rows(scales=1.0, offset=0.0):
    return np.random.default_rng(0).standard_normal((N, F)) * scales + offset


def test_rates_are_scikit_learns():
    optimal = RowRate("optimal", alpha=0.01)
    t0 = 1 / (np.sqrt(1 / np.sqrt(0.01)) * 0.01)
    assert_allclose([optimal.at(t) for t in (1, 50)], [1 / (0.01 * (t0 + t - 1)) for t in (1, 50)])
    assert RowRate("invscaling", eta0=0.5, power_t=0.25).at(16) == 0.25
    assert RowRate("constant", eta0=0.3).at(99) == RowRate("adaptive", eta0=0.3).at(1) == 0.3


def test_small_rates_take_the_sum_of_the_steps_of_the_rows():
    steps = made(rows() - rows().mean(axis=0), RowRate("constant", eta0=1e-6))
    g = np.random.default_rng(1).standard_normal(F + 1)
    taken = g.copy()
    steps.apply(taken, seen=0)
    assert_allclose(taken, 20 * 1e-6 * g, rtol=1e-3)


def test_the_smaller_last_batch_takes_a_smaller_step():
    steps = made(rows(), RowRate("constant", eta0=0.1))
    g = np.random.default_rng(1).standard_normal(F + 1)
    whole, part = g.copy(), g.copy()
    steps.apply(whole, 0, 20)
    steps.apply(part, 0, 5)
    assert_allclose(part, whole / 4)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("eta0", [0.01, 1e6])
def test_no_rate_and_no_scale_diverges(eta0, sparse, outputs):
    x = rows(np.array([1e-3, 1, 1e3, 1, 1e-2]), np.array([0, 100.0, 1e4, -3, 0]))
    target = (x[:, 0] * 500 + x[:, 2] / 1e3)[:, None] * np.arange(1, outputs + 1)
    y = target[:, 0] if outputs == 1 else target
    network = LinearModel("squared_error", alpha=1e-6, dtype="float64").build(
        Signature(F, outputs, task="regression", dtype="float64", sparse=sparse)
    )
    data = csr_matrix(x) if sparse else x
    steps = made(data, RowRate("constant", eta0=eta0), outputs=outputs)
    w, g, t = network.init(0), np.empty(network.size), 0
    losses = []
    for _ in range(150):
        total = 0.0
        for a in range(0, N, 20):
            loss, weight = network.loss_grad(w, data[a : a + 20], y[a : a + 20], None, g)
            total += loss
            g /= weight
            steps.apply(g, seen=t)
            w -= g
            t += 20
        losses.append(total / N)
    assert losses[-1] < (1e-2 if eta0 > 1 else 0.5) * losses[0]


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("unit", [1.0, 0.2])
@pytest.mark.parametrize("eta0", [1e-6, 0.01, 10.0, 1e6])
def test_steps_solve_for_the_columns_and_what_the_rows_have_in_common(eta0, unit, outputs):
    x, l2 = rows(np.array([1e-3, 1, 30, 1, 1e-2]), np.array([0, 10.0, 500, -3, 0])), 0.1
    rate = RowRate("constant", eta0=eta0)
    common = np.append(x.mean(axis=0), 1.0)
    steps = RowSteps(rate, 20, N, x.var(axis=0), common[:F], factor=1.5, l2=l2, outputs=outputs, unit=unit, dtype="f8")
    matrix = (
        np.diag(np.append(1.5 * x.var(axis=0) + l2, 0)) + 1.5 * np.outer(common, common) + np.eye(F + 1) / (20 * eta0)
    )
    g = np.random.default_rng(1).standard_normal((F + 1, outputs))
    taken = g.copy()
    steps.apply(taken.reshape(-1), seen=0)
    assert_allclose(unit * taken, np.linalg.solve(matrix, g), rtol=1e-7, atol=1e-9 * eta0)


def test_the_intercept_moves_with_the_columns_means():
    x = rows(offset=50.0)
    steps = made(x, RowRate("constant", eta0=1e6))
    g = np.append(x.mean(axis=0), 1.0)  # the gradient of the intercept alone, as raw columns show it
    steps.apply(g, seen=0)
    assert_allclose(g[:F], 0, atol=1e-6)
    assert g[F] > 0


@pytest.mark.parametrize("eta0", [1e-9, 1e6])
def test_shrinking_a_column_far_from_zero_keeps_the_mean_score_where_large_steps_do(eta0):
    x = rows(offset=50.0)
    steps = made(x, RowRate("constant", eta0=eta0), l1=0.1)
    w = np.append(np.full(F, 5.0), 1.0)
    before, state = w.copy(), steps.slots()
    steps.shrink(w, 0, 1.0, state)
    assert (w[:F] < before[:F]).all()
    if eta0 > 1:
        assert_allclose((x @ w[:F] + w[F]).mean(), (x @ before[:F] + before[F]).mean(), rtol=1e-6)
    else:
        assert_allclose(w[F], before[F], atol=1e-6)


def test_shrinking_stops_at_zero():
    steps = made(rows() - rows().mean(axis=0), RowRate("constant", eta0=0.1), l1=0.5)
    w = np.array([1e-9, -1e-9, 5.0, -5.0, 0.0, 7.0])
    state = steps.slots()
    steps.shrink(w, 0, 1.0, state)
    assert list(w[[0, 1, 4]]) == [0, 0, 0]
    assert_allclose(w[5], 7, atol=1e-12)
    assert 4 < w[2] < 5
    assert -5 < w[3] < -4
    # What a coefficient did not pay while it was 0 it still owes, and no more than that.
    step, once = steps.steps(0)[0] * steps.l1, w[2]
    w[0] = 1.5 * step
    steps.shrink(w, 0, 1.0, state)
    assert w[0] == 0
    w[0] = 1.0
    steps.shrink(w, 0, 1.0, state)
    assert_allclose(w[0], 1 - 1.5 * step, atol=1e-6)
    assert_allclose(5 - w[2], 3 * (5 - once))


def test_moments_come_in_parts():
    x = rows(offset=3.0)
    columns = Columns(F)
    for a in range(0, N, 7):
        columns.add(csr_matrix(x[a : a + 7]) if a % 2 else x[a : a + 7])
    assert_allclose(columns.means, x.mean(axis=0))
    _, moments = columns.seen_from(True, np.dtype("f8"))
    assert_allclose(moments, x.var(axis=0))
    assert not Columns(F).add(x[:3]).seen_from(True, np.dtype("f8"))[0].any()


def test_the_average_is_the_mean_of_the_way():
    rule, w = Averaged(SGD(0.5, momentum=0.5), start=3), np.array([4.0, -2.0])
    state, way = rule.init(2, w.dtype), []
    for t in range(1, 8):
        rule.apply(w, w.copy(), state, t)
        way.append(w.copy())
    assert_allclose(rule.result(w, state, 7), np.mean(way[2:], axis=0))
    assert rule.result(w, state, 2) is w
    assert rule.with_rate(0.1).learning_rate == 0.1


@pytest.mark.parametrize("wrong", [{"start": 0}, {"optimizer": Averaged(SGD())}, {"optimizer": "SGD"}])
def test_wrong_averages_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        Averaged(**{"optimizer": SGD()} | wrong)
