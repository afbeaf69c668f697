"""Gradient noise as ranks measure it, against the gradients of single rows of data; and that measuring changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from sklearn.datasets import load_digits

from family.strategies import STRATEGIES
from runtime import harness
from scaleml.compression import TopK
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD
from scaleml.runtime.commands import Command
from scaleml.runtime.serialization import describe
from scaleml.strategies import AllReduce, Hogwild, LocalSGD, ParameterServer, Serial
from scaleml.telemetry import History

ALPHA = 0.01
STILL = SGD(1e-12)
"""Parameters that do not move: what is measured in all steps is the same."""


@pytest.fixture
def every_step(monkeypatch):
    """Measure in every step."""
    for room in ("gradient_noise", "parameter_server.server_noise"):
        monkeypatch.setattr(f"scaleml.runtime.{room}.measuring_interval", lambda *args, **named: 1)


def digits(rows=900):
    x, y = load_digits(return_X_y=True)
    return x[:rows] / 16, y[:rows]


def softmax(**settings):
    return LinearModel("log_loss", **{"alpha": ALPHA, "dtype": "float64", **settings})


def row_gradients(x, y, w):
    """The gradient of each row's loss, (n, P), of a softmax regression with 10 classes."""
    table = w.reshape(-1, 10)
    scores = x @ table[:-1] + table[-1]
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y.astype(int)] -= 1
    return (np.c_[x, np.ones(len(x))][:, :, None] * p[:, None, :]).reshape(len(x), -1)


def penalty(w):
    table = ALPHA * w.reshape(-1, 10)
    table[-1] = 0
    return table.ravel()


def truth(x, y, w):
    """Trace of the covariance of single rows' gradients, and squared norm of the objective's."""
    each = row_gradients(x, y, w)
    mean = each.mean(axis=0)
    return np.square(each - mean).sum() / (len(y) - 1), np.square(mean + penalty(w)).sum()


@dataclass
class Batches:
    """What each rank had in each of its steps: parameters, and X, y and weights."""

    seen: dict[int, list] = field(default_factory=dict)

    def prepare(self, loop):
        if hasattr(loop, "rank"):
            rank, take = loop.rank, loop.rank.gradients.batches.take
            mine = self.seen.setdefault(rank.world.rank, [])

            def taken(consumed, count):
                batch = take(consumed, count)
                mine.append((rank.w.copy(), *batch[:3]))
                return batch

            rank.gradients.batches.take = taken

    def steps(self):
        """Each step's batches of all ranks; the first is the warm-up's."""
        return list(zip(*(self.seen[rank][1:] for rank in sorted(self.seen)), strict=True))


def between_groups(parts, rows):
    """What the ranks' estimates of a step add up to: mean square between groups, and the mean's square without its noise."""
    w = parts[0][0]
    divisors = np.array([len(y) if v is None else v.sum() for _, _, y, v in parts])
    means = [
        (row_gradients(x, y, w) * (1 if v is None else v[:, None])).sum(axis=0) / divisor
        for (_, x, y, v), divisor in zip(parts, divisors, strict=True)
    ]
    size, total = sum(len(y) for _, _, y, _ in parts), divisors.sum()
    mean, between = divisors @ means / total, len(parts) - 1
    trace = size / total * (divisors @ np.square(means - mean).sum(axis=1))
    return np.array([trace, between * np.square(mean + penalty(w)).sum() - trace * (1 / size - 1 / rows), between])


def sums(history, *names):
    return [float(history[name].sum()) for name in names or ("noise", "signal", "noise_weight", "biased")]


@pytest.mark.parametrize(
    "strategy",
    [
        AllReduce(),
        AllReduce(overlap=True),
        AllReduce(topology="ring"),
        LocalSGD(4, start_after=1000),
        ParameterServer("bsp"),
        ParameterServer("bsp", servers=3),
    ],
    ids=repr,
)
@pytest.mark.parametrize("weighted", [False, True])
def test_between_replicas_it_is_the_mean_square_between_groups(every_step, strategy, weighted):
    """The formula, written down with the gradients of single rows; also in a last batch of fewer rows, and with unequal parts."""
    x, y = digits(700)
    weights = np.random.default_rng(0).uniform(0.2, 3, len(y)) if weighted else None
    batches = Batches()
    result = harness.on_threads(
        softmax(), x, y, strategy=strategy, workers=3, optimizer=SGD(0.1), epochs=2, batch_size=64, shards=7,
        sample_weight=weights, prepare=batches.prepare,
    )  # fmt: skip
    expected = sum(between_groups(parts, len(y)) for parts in batches.steps())
    assert_allclose(sums(result.history), [*expected, 0], rtol=1e-7)


@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer("bsp")], ids=repr)
def test_replicas_find_the_noise_scale_of_single_rows(every_step, strategy):
    """At the same parameters all the time: a real logistic regression, half trained."""
    x, y = digits()
    start = harness.on_threads(softmax(), x, y, strategy=Serial(), optimizer=SGD(0.1), epochs=4)
    trace, norm = truth(x, y, start.params)
    result = harness.on_threads(
        softmax(), x, y, strategy=strategy, workers=4, optimizer=STILL, epochs=1, batch_size=30,
        start=start.params,
    )  # fmt: skip
    noise, signal, weight, _ = sums(result.history)
    assert weight == 3 * 30
    assert noise / weight == pytest.approx(trace, rel=0.15)
    assert signal / weight == pytest.approx(norm, rel=0.5)
    scale = result.history.noise_scale
    assert scale.low < trace / norm < scale.high
    assert not scale.biased


@pytest.mark.parametrize(
    "strategy", [Serial(), LocalSGD(4), AllReduce(compression=TopK(0.05)), Hogwild(sparse=False)], ids=repr
)
def test_successive_gradients_tell_it_where_nothing_moves(every_step, strategy):
    x, y = digits()
    start = harness.on_threads(softmax(), x, y, strategy=Serial(), optimizer=SGD(0.1), epochs=4)
    trace, norm = truth(x, y, start.params)
    workers = strategy.layout(3).workers
    result = harness.on_threads(
        softmax(), x, y, strategy=strategy, workers=workers, optimizer=STILL, epochs=2, batch_size=30,
        start=start.params,
    )  # fmt: skip
    noise, signal, weight, biased = sums(result.history)
    assert weight == biased >= 20
    assert noise / weight == pytest.approx(trace, rel=0.15)
    assert signal / weight == pytest.approx(norm, rel=0.6)
    assert result.history.noise_scale.biased


def test_large_steps_make_it_look_larger(every_step):
    """What the mark is for."""
    x, y = digits()
    batches = Batches()
    result = harness.on_threads(
        softmax(), x, y, strategy=Serial(), optimizer=SGD(0.5), epochs=20, batch_size=60, prepare=batches.prepare
    )
    _, signal, weight, _ = sums(result.history)
    found = np.mean([truth(x, y, parts[0][0]) for parts in batches.steps()], axis=0)
    assert signal / weight < found[1] / 1.5


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_measuring_changes_no_bit(monkeypatch, strategy):
    x, y = digits(300)

    def trained(interval):
        for room in ("gradient_noise", "parameter_server.server_noise"):
            monkeypatch.setattr(f"scaleml.runtime.{room}.measuring_interval", lambda *args, **named: interval)
        return harness.on_threads(
            MLP((6,), alpha=ALPHA, dtype="float32"), x, y, strategy=strategy, workers=3, optimizer=SGD(0.05, momentum=0.9),
            simulated=not strategy.shares_memory, epochs=3,
        )  # fmt: skip

    measured, seldom = trained(1), trained(10**9)
    assert sums(measured.history, "noise_weight") > [5.0]
    assert sums(seldom.history, "noise_weight") <= [3.0], "what there is to compare with"
    if not strategy.shares_memory:
        assert_array_equal(measured.params, seldom.params)


def test_without_replicas_there_is_no_estimate_of_one_batch_of_all_rows(every_step):
    x, y = digits(200)
    result = harness.on_threads(softmax(), x, y, strategy=Serial(), batch_size=200, epochs=20)
    assert sums(result.history) == [0, 0, 0, 0]
    assert "not measured" in str(result.history.noise_scale)


def test_a_batch_of_all_rows_has_the_gradient_itself(every_step):
    x, y = digits(200)
    result = harness.on_threads(
        softmax(), x, y, strategy=AllReduce(), workers=4, optimizer=STILL, batch_size=200, epochs=10
    )
    _, norm = truth(x, y, result.params)
    _, signal, weight, _ = sums(result.history)
    assert signal / weight == pytest.approx(norm, rel=1e-9)


def test_ranks_without_rows_do_not_count(every_step):
    x, y = digits(200)
    result = harness.on_threads(softmax(), x, y, strategy=AllReduce(), workers=5, shards=5, batch_size=2, epochs=1)
    noise, _, weight, _ = sums(result.history)
    assert 0 < weight <= 100
    assert noise > 0


@pytest.mark.parametrize("kind", ["threads", "csr"])
def test_sparse_pushes_have_the_noise_of_whole_ones(every_step, kind):
    """Without a penalty; with one, servers add it where no worker has the parameters, and nothing is said."""
    x, y = digits(300)
    data = csr_array(x) if kind == "csr" else x

    def of(alpha, strategy, epochs=2):
        model = softmax(penalty=None) if not alpha else softmax()
        result = harness.on_threads(
            model, data, y, strategy=strategy, workers=2, optimizer=STILL, epochs=epochs, batch_size=40
        )
        return sums(result.history)

    whole = of(0, ParameterServer("bsp", servers=2, sparse=False))
    assert_allclose(of(0, ParameterServer("bsp", servers=2)), whole, rtol=1e-7)
    assert whole[2] > 5
    # Asynchronous workers take other batches each time; the mean over their pairs is compared.
    one, other = (of(0, ParameterServer("async", sparse=sparse), epochs=12) for sparse in (None, False))
    assert one[0] / one[2] == pytest.approx(other[0] / other[2], rel=0.3)
    fewer = of(0, ParameterServer("async", sparse=False))
    assert of(1, ParameterServer("bsp"))[2] == (0 if kind == "csr" else whole[2])
    assert of(1, ParameterServer("async"))[2] == pytest.approx(0 if kind == "csr" else fewer[2], abs=6)


def test_sparse_updates_of_shared_memory_are_measured(every_step):
    x, y = digits(300)
    result = harness.on_threads(
        softmax(penalty=None),
        csr_array(x),
        y,
        strategy=Hogwild(sparse=True),
        workers=1,
        optimizer=STILL,
        epochs=2,
        batch_size=30,
    )
    dense = harness.on_threads(softmax(penalty=None), x, y, strategy=Serial(), optimizer=STILL, epochs=2, batch_size=30)
    assert_allclose(sums(result.history), sums(dense.history), rtol=1e-7)


def test_float32_and_many_equal_rows_do_not_cancel(every_step):
    """All rows are the same: no noise at all. Rounding may look like a part of a row, not like more."""
    x, y = np.tile(np.random.default_rng(0).normal(size=(1, 50)), (4_000, 1)), np.arange(4_000) % 2
    x[y == 1] *= -1  # the mirror image has the same gradient
    result = harness.on_threads(
        LinearModel("log_loss", alpha=0.0, dtype="float32", fit_intercept=False), x, y, strategy=AllReduce(), workers=2,
        optimizer=SGD(1e-3), batch_size=2_000, epochs=10,
    )  # fmt: skip
    noise, signal, weight, _ = sums(result.history)
    assert weight == 20
    assert abs(noise / signal) < 0.1


def test_another_batch_in_mid_run(every_step):
    x, y = digits()
    changes, batches = [(20, Command(1, "update", {"batch_size": 300}))], Batches()
    result = harness.on_threads(
        softmax(), x, y, strategy=AllReduce(), workers=3, optimizer=SGD(0.1), epochs=4, batch_size=30, commands=changes,
        prepare=batches.prepare,
    )  # fmt: skip
    steps = batches.steps()
    assert {sum(len(part[2]) for part in parts) for parts in steps} > {30, 300}
    expected = sum(between_groups(parts, len(y)) for parts in steps)
    assert_allclose(sums(result.history), [*expected, 0], rtol=1e-7)


def test_after_a_change_of_strategy_it_comes_from_elsewhere(every_step):
    """From steps in common to steps alone, and what is biased is told apart from what is not."""
    x, y = digits()
    changes = [(40, Command(1, "update", {"strategy": describe(LocalSGD(4))}))]
    result = harness.on_threads(
        softmax(), x, y, strategy=AllReduce(), workers=3, optimizer=SGD(0.1), epochs=4, batch_size=30, commands=changes
    )
    history = result.history
    before = history["step"] <= result.applied[1][0]
    assert history["biased"][before].sum() == 0 < history["noise_weight"][before].sum()
    assert history["biased"][~before].sum() == history["noise_weight"][~before].sum() > 0
    assert history.noise_scale.biased


def test_on_workers_it_comes_to_the_client(cluster):
    x, y = digits()
    settings = {"strategy": AllReduce(), "workers": 3, "shards": 6, "batch_size": 60, "epochs": 10}
    there = harness.on_workers(softmax(), x, y, **settings).history
    here = harness.on_threads(softmax(), x, y, **settings).history
    assert isinstance(there, History)
    assert_allclose(sums(there), sums(here), rtol=1e-9)
    assert there.noise_scale.rows == pytest.approx(here.noise_scale.rows, rel=0.2)
