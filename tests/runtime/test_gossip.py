"""Gossip in step against plain NumPy with the mixing matrix."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from runtime import harness, reference
from runtime.test_commands import one_step, told
from runtime.test_strategies import BATCH, COLUMNS, EPOCHS, ROWS, SHARDS, close, linear, made, problem, start
from scaleml.comm import inprocess
from scaleml.comm.conventions import INLINE
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD, Adam
from scaleml.runtime.gossip import GossipCoordinator
from scaleml.runtime.serialization import describe
from scaleml.strategies import AllReduce, Gossip, LocalSGD

STEPS = EPOCHS * -(-ROWS // BATCH)
TOPOLOGIES = ("ring", "exponential", "random")
RANKS = (1, 2, 3, 5)


def mixing_matrix(strategy, step, ranks):
    """Return W: each rank takes equal parts of itself and its sources."""
    matrix = np.zeros((ranks, ranks))
    for rank in range(ranks):
        taken = (rank, *strategy.sources(step, rank, ranks))
        matrix[rank, list(taken)] = 1 / len(taken)
    return matrix


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8])
def test_every_mixing_matrix_is_doubly_stochastic_and_agreed_on(topology, ranks):
    strategy = Gossip(topology)
    product = np.eye(ranks)
    for step in range(60):
        matrix = mixing_matrix(strategy, step, ranks)
        assert_allclose(matrix.sum(axis=0), 1)
        assert_allclose(matrix.sum(axis=1), 1)
        for rank in range(ranks):
            sources = [r for r in range(ranks) if rank in strategy.sources(step, r, ranks)]
            assert sorted(strategy.receivers(step, rank, ranks)) == sources
        product = matrix @ product
    assert_allclose(product, 1 / ranks, atol=1e-2)  # everybody hears of everybody
    if topology == "exponential" and ranks in (2, 4, 8):
        exact = np.linalg.multi_dot(
            [np.eye(ranks)] * 2 + [mixing_matrix(strategy, k, ranks) for k in range(ranks // 2 + 1)]
        )
        assert_allclose(exact, 1 / ranks, atol=1e-15)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("ranks", [2, 3, 5, 8])
def test_a_word_of_rank_0_goes_from_neighbour_to_neighbour(topology, ranks):
    strategy = Gossip(topology)
    for first in (0, 7):
        step = strategy.command_step(first, 999, ranks)
        reach = np.eye(ranks)
        for k in range(first, step + 1):
            assert (reach[:, 0] == 0).any(), "a step too many"
            reach = mixing_matrix(strategy, k, ranks) @ reach
        assert (reach[:, 0] > 0).all()


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("ranks", RANKS)
def test_gossip_is_the_mixing_matrix(topology, ranks):
    x, y, _ = made("binary")
    strategy = Gossip(topology)
    rules = [reference.Sgd(0.3, 0.9) for _ in range(ranks)]
    expected = reference.gossip(
        problem("binary"), np.zeros(COLUMNS + 1), rules, EPOCHS, BATCH, lambda k: mixing_matrix(strategy, k, ranks)
    )
    result = harness.on_threads(
        linear("binary"), x, y, strategy=strategy, optimizer=SGD(0.3, momentum=0.9), workers=ranks, shards=SHARDS,
        epochs=EPOCHS, batch_size=BATCH,
    )  # fmt: skip
    close(result.params, expected)
    for outcome in result.outcomes:
        assert_array_equal(outcome.params, result.params)


def wide(rows=200, columns=INLINE // 8 + 500):
    """More parameters than travel in one piece: they lie in shared memory, or go in pieces."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, columns)) / np.sqrt(columns)
    return x, (x @ rng.normal(size=columns) > 0).astype(int)


def test_gossip_everywhere(train):
    x, y = wide()
    strategy = Gossip("exponential")
    cut = reference.Problem(x, y, (x.shape[1], 1), "binary", 0.0, None, 6)
    rules = [reference.Sgd(0.3, 0.5) for _ in range(3)]
    expected = reference.gossip(
        cut, np.zeros(x.shape[1] + 1), rules, EPOCHS, 40, lambda k: mixing_matrix(strategy, k, 3)
    )
    model = LinearModel(alpha=0.0, penalty=None, dtype="float64")
    runs = [
        train(
            model, x, y, strategy=strategy, optimizer=SGD(0.3, momentum=0.5), workers=3, shards=6, epochs=EPOCHS,
            batch_size=40,
        ) for _ in range(2)
    ]  # fmt: skip
    close(runs[0].params, expected)
    assert_array_equal(runs[0].params, runs[1].params)


def test_gossip_on_sparse_data_and_a_network(train, storage):
    x, y, _ = made("multiclass")
    model = MLP((5,), "tanh", alpha=0.01, dtype="float64")
    rules = [reference.Adam(0.02) for _ in range(3)]
    expected = reference.gossip(
        problem("multiclass", (5,)), start(model, x, y), rules, EPOCHS, BATCH,
        lambda k: mixing_matrix(Gossip(), k, 3),
    )  # fmt: skip
    result = train(
        model, storage(x), y, strategy=Gossip(), optimizer=Adam(0.02), workers=3, shards=SHARDS, epochs=EPOCHS,
        batch_size=BATCH, validation=(x[:50], y[:50]),
    )  # fmt: skip
    close(result.params, expected)
    assert len(result.history.evaluations["loss"]) == EPOCHS + 1


@pytest.mark.parametrize("ranks", [3, 5, 8])
def test_without_gradients_ranks_agree_at_the_speed_of_the_spectral_gap(ranks):
    matrix = mixing_matrix(Gossip("ring"), 0, ranks)
    second = np.sort(np.abs(np.linalg.eigvalsh(matrix)))[-2]
    steps = 20

    class Mute:
        """A context without data: it gives gradients that change nothing."""

        is_last_step = False

        def __init__(self, group, neighbours):
            self.group, self.neighbours, self.step, self.optimizer = group, neighbours, 0, self

        def gradient(self, w):
            return w

        def apply(self, w, g, state):
            pass

    def rank_main(group):
        from types import SimpleNamespace

        from scaleml.telemetry.recorder import Recorder

        w = np.random.default_rng(group.rank).normal(size=50)
        plan = SimpleNamespace(
            model=SimpleNamespace(dtype="float64"),
            total=1,
            taken=(),
            start=None,
            evaluate_every=0,
            strategy=Gossip(),
            layout=None,
        )
        context = Mute(group, GossipCoordinator(plan, group, w, Recorder(group.rank, group.meter)))
        path = [w.copy()]
        for context.step in range(steps):
            Gossip("ring").step(w, {}, context)
            path.append(w.copy())
        return path

    paths = np.array(inprocess.run(ranks, rank_main))  # rank, step, parameter
    mean = paths[:, 0].mean(axis=0)
    assert_allclose(paths.mean(axis=0), np.broadcast_to(mean, paths.shape[1:]), atol=1e-12)
    distance = np.linalg.norm(paths - mean, axis=(0, 2))
    assert (distance[1:] <= distance[:-1] * second + 1e-12).all()
    assert distance[-1] == pytest.approx(distance[-2] * second, rel=0.05), "the slowest mode is what is left"


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_commands_act_at_one_step(topology):
    result = told(("update", {"learning_rate": 0.03}), strategy=Gossip(topology), workers=5)
    step = one_step(result.applied[1], 5)
    assert 5 < step < STEPS
    rates = [0.3, 0.03]
    expected = simulated(Gossip(topology), 5, rate_of=lambda k: rates[k >= step])
    close(result.params, expected)
    stopped = told(("pause", {}), ("stop", {}), strategy=Gossip(topology), workers=5)
    step = one_step(stopped.applied[2], 5)
    close(stopped.params, simulated(Gossip(topology), 5, steps=step))
    for outcome in stopped.outcomes:
        assert_array_equal(outcome.params, stopped.params)


def simulated(strategy, ranks, rate_of=lambda k: 0.3, steps=None, until=None):
    cut = problem("binary")
    w, v = np.zeros((ranks, COLUMNS + 1)), np.zeros((ranks, COLUMNS + 1))
    for step, parts in enumerate(cut.batches(EPOCHS, BATCH)):
        if step == steps:
            break
        if step == until:  # all-reduce from here on
            w[:], v[:] = w.mean(axis=0), v.mean(axis=0)
        for rank in range(ranks):
            together = until is not None and step >= until
            g = cut.gradient(w[rank], np.concatenate(parts) if together else reference.share(parts, ranks, rank))
            if g is not None:
                v[rank] = 0.5 * v[rank] + g
                w[rank] -= rate_of(step) * v[rank]
        if until is None or step < until:
            w = mixing_matrix(strategy, step, ranks) @ w
    return w.mean(axis=0)


def test_all_ranks_agree_before_another_strategy_takes_over():
    result = told(("update", {"strategy": describe(AllReduce())}), strategy=Gossip(), workers=5)
    close(result.params, simulated(Gossip(), 5, until=one_step(result.applied[1], 5)))
    back = told(("update", {"strategy": describe(Gossip("random"))}), strategy=LocalSGD(4), workers=3)
    assert np.isfinite(back.params).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"topology": "star"}, "topology='star'"), ({"asynchronous": 1}, "asynchronous=1"), ({"seed": None}, "seed=None")],
)
def test_what_cannot_be_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Gossip(**settings)
