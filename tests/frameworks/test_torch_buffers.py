"""Buffers: BatchNorm's running statistics against a loop by hand, on every strategy, and wherever a run leaves them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.nn import functional

from family.strategies import STRATEGIES
from frameworks.torch_modules import COLUMNS
from runtime import harness
from runtime.test_checkpoints import origin, saving
from runtime.test_train_state import spoil, take_turns
from scaleml import TorchModel
from scaleml.api.trained_model import TrainedModel
from scaleml.models import Signature
from scaleml.models.buffers import Buffers
from scaleml.models.flat_model import Buffered, with_buffers
from scaleml.optim import SGD, Adam
from scaleml.runtime.commands import Command
from scaleml.runtime.errors import NonFinite
from scaleml.runtime.serialization import describe
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.train_state import TrainState
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer, Serial

ROWS, BATCH, EPOCHS = 96, 24, 2
SIGNATURE = Signature(COLUMNS, 3, "multiclass")
RNG = np.random.default_rng(5)
X = (RNG.standard_normal((ROWS, COLUMNS)) * 3 + 1).astype("f4")
Y = (X @ RNG.standard_normal((COLUMNS, 3))).argmax(1)


def normed(dropout=0.0):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(COLUMNS, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(dropout), nn.BatchNorm1d(6, momentum=None), nn.Linear(6, 3)
    )  # fmt: skip


def trained(strategy, module=None, rule="average", **settings):
    usual = {"optimizer": SGD(0.1), "batch_size": BATCH, "epochs": EPOCHS, "validation": (X, Y), "simulated": True}
    model = TorchModel(module or normed(), "cross_entropy", buffers=rule)
    return harness.on_threads(model, X, Y, strategy=strategy, **{**usual, **settings})


def network(module=None, **settings):
    return TorchModel(module or normed(), "cross_entropy", **settings).build(SIGNATURE)


def by_hand(ranks, module=None):
    """Return each rank's module after the usual training, gradients summed over all, and the batches' rows."""
    modules = [module or normed() for _ in range(ranks)]
    seen = batches(ranks)
    for parts in seen:
        for one, rows in zip(modules, parts, strict=True):
            one.zero_grad()
            functional.cross_entropy(
                one(torch.tensor(rows[0])), torch.tensor(rows[1]).long(), reduction="sum"
            ).backward()
        for same in zip(*(one.parameters() for one in modules), strict=True):
            total = sum(one.grad for one in same) / BATCH
            with torch.no_grad():
                for one in same:
                    one -= 0.1 * total
    return modules


def batches(ranks):
    """Return what each rank's gradients are given in each step of the usual training."""
    seen = [[] for _ in range(ranks)]

    def prepare(loop):
        model, rank = loop.rank.plan.model, loop.rank.world.rank
        real = loop.rank.gradients._loss_grad

        def noted(w, x, y, *more):
            seen[rank].append((np.array(x), np.array(y)))
            return real(w, x, y, *more)

        loop.rank.gradients._loss_grad = noted
        assert isinstance(model, Buffered)

    trained(AllReduce(), workers=ranks, prepare=prepare)
    return list(zip(*(one[1:] for one in seen), strict=True))  # without the warm-up's


def statistics(module):
    own = dict(module.named_buffers())
    values = [one.double().numpy().ravel() for one in own.values() if one.is_floating_point()]
    return np.concatenate(values), [int(one) for one in own.values() if not one.is_floating_point()]


@pytest.mark.parametrize("ranks", [1, 2])
def test_running_statistics_are_those_of_a_loop_by_hand(ranks):
    """On two ranks the mean of each rank's own, whatever was evaluated on the way; the warm-up has left no trace in them."""
    result = trained(AllReduce() if ranks > 1 else Serial(), workers=ranks)
    expected = by_hand(ranks)
    found = [statistics(one) for one in expected]
    for outcome in result.outcomes:
        assert_allclose(outcome.buffers.values, np.mean([one[0] for one in found], 0), rtol=1e-5, atol=1e-6)
        assert outcome.buffers.counts.tolist() == found[0][1] == [8, 8]
    params = np.concatenate([one.detach().numpy().ravel() for one in expected[0].parameters()])
    assert_allclose(result.params, params, rtol=1e-4, atol=1e-5)


def test_rules():
    """Rank 0's are rank 0's, local ones each rank's own."""
    expected = [statistics(one)[0] for one in by_hand(2)]
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    for rule, ranks in {"rank0": (0, 0), "local": (0, 1)}.items():
        for outcome, rank in zip(trained(AllReduce(), rule=rule).outcomes, ranks, strict=True):
            assert_allclose(outcome.buffers.values, expected[rank], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_every_strategy_leaves_and_evaluates_the_statistics_that_it_has(strategy):
    result = trained(strategy, prepare=lambda loop: take_turns(loop) if hasattr(loop, "rank") else None)
    outcome = result.outcomes[0]
    own = with_buffers(network(), outcome.buffers)
    module = own.module(outcome.params)
    assert not module.training
    x, y = torch.tensor(X), torch.tensor(Y)
    with torch.no_grad():
        scores = module(x)
        loss = functional.cross_entropy(scores, y).item()
    assert_array_equal(own.predict(outcome.params, X), scores.argmax(1).numpy())
    assert_allclose(result.history.evaluations["loss"][-1], loss, rtol=1e-4)
    module.load_state_dict(dict(normed().named_buffers()), strict=False)
    with torch.no_grad():
        assert abs(functional.cross_entropy(module(x), y).item() - loss) > 0.02, "those of the start are others"
    if strategy.layout(2).servers == 0:
        for other in result.outcomes[1:]:
            assert_array_equal(other.buffers.values, outcome.buffers.values)


def test_the_best_evaluation_keeps_its_statistics():
    """A rate that overshoots: the best is not the last."""
    result = trained(AllReduce(), optimizer=SGD(8.0), epochs=4)
    losses = result.history.evaluations["loss"]
    best = result.outcomes[0].best
    assert 0 <= best.evaluation == int(np.argmin(losses)) < len(losses) - 1
    own, params = with_buffers(network(), best.buffers), best.params
    totals = own.statistics(params, X, Y.astype("i4"))
    assert_allclose(own.summarise(totals)[0], losses[best.evaluation], rtol=1e-4)
    kept = trained(AllReduce(), optimizer=SGD(8.0), epochs=4, stop=StopRule(tol=None, keep_best=True, monitor="score"))
    scores = kept.history.evaluations["score"]
    given = kept.outcomes[0]
    assert (with_buffers(network(), given.buffers).predict(given.params, X) == Y).mean() == pytest.approx(
        max(scores[1:])
    )


def test_a_switch_of_strategy_takes_them_along():
    switch = Command(1, "update", {"strategy": describe(LocalSGD(2))})
    before = trained(AllReduce(), workers=2)
    after = trained(AllReduce(), workers=2, commands=[(2, switch)])
    assert after.applied[1]
    assert after.outcomes[0].buffers.counts.tolist() == before.outcomes[0].buffers.counts.tolist()
    handed = trained(AllReduce(), workers=2, commands=[(2, Command(1, "switch", {}))])
    assert [one.status for one in handed.outcomes] == ["switched"] * 2
    others = trained(ParameterServer("bsp"), workers=2, before=handed.outcomes)
    assert others.outcomes[0].buffers.counts.tolist() == before.outcomes[0].buffers.counts.tolist()


def test_infinity_leaves_the_statistics_of_the_last_good_step():
    bad, loops = X.copy(), []
    bad[60:] = 3e38
    model = TorchModel(normed(), "cross_entropy")
    with pytest.raises(NonFinite):
        harness.on_threads(model, bad, Y, strategy=Serial(), workers=1, batch_size=BATCH, prepare=loops.append)
    (loop,) = loops
    kept = loop.last_good_buffers()
    assert np.isfinite(kept.values).all()
    assert np.isfinite(loop.last_good()).all()


@pytest.mark.parametrize(
    "strategy", [AllReduce(), LocalSGD(3), ParameterServer("bsp"), ParameterServer("async")], ids=repr
)
@pytest.mark.parametrize("step", [1, 3, 6])
def test_what_is_restored_goes_on_with_the_same_bits(strategy, step):
    """With dropout: the random numbers come back, too."""

    def lose(loop):
        if not hasattr(loop, "rank"):
            return
        take_turns(loop)
        real, calls = loop.rank.take_step, []

        def take_step():
            real()
            calls.append(loop.rank.step)
            if len(calls) == step:
                kept = loop.rank.snapshot().to_bytes()
                spoil(loop.rank.state)
                model = loop.rank.plan.model
                model.set_buffers(Buffers(np.full_like(model.buffers().values, np.nan), model.buffers().counts + 5))
                loop.rank.restore(TrainState.from_bytes(kept))
                happened.add(loop.rank.world.rank)

        loop.rank.take_step = take_step

    happened: set[int] = set()
    usual = {"optimizer": Adam(0.01), "module": normed(0.4)}
    undisturbed = trained(strategy, prepare=lambda loop: take_turns(loop) if hasattr(loop, "rank") else None, **usual)
    restored = trained(strategy, prepare=lose, **usual)
    assert happened == {0, 1}
    assert_array_equal(restored.params, undisturbed.params)
    for mine, theirs in zip(restored.outcomes[:2], undisturbed.outcomes[:2], strict=True):
        assert_array_equal(mine.buffers.values, theirs.buffers.values)
        assert_array_equal(mine.buffers.counts, theirs.buffers.counts)
    assert_array_equal(restored.history.evaluations["loss"], undisturbed.history.evaluations["loss"])


def test_a_model_has_its_own_wherever_it_goes():
    one = network()
    w, out = one.init(0), np.empty(one.size, "f4")
    one.loss_grad(w, X, Y.astype("i4"), None, out)
    seen = one.buffers()
    assert not np.array_equal(seen.values, one.first_buffers().values)
    model = TrainedModel.of_run(network(), SIGNATURE, np.array(["a", "b", "c"]), w, seen)
    assert_array_equal(statistics(model.module)[0].astype("f4"), seen.values)
    expected = model.predict(X)
    one.loss_grad(w, X * 3, Y.astype("i4"), None, out)
    assert_array_equal(model.predict(X), expected)
    for again in (pickle.loads(pickle.dumps(model)), model.snapshot()):
        assert_array_equal(again.predict(X), expected)
    assert_array_equal(with_buffers(one, seen).buffers().values, seen.values)
    with pytest.raises(RuntimeError, match=r"buffers.*are lost: the run's \.params"):
        TrainedModel.of_run(network(), SIGNATURE, None, w, None)


class Masked(nn.Module):
    """A large mask of infinities, which never changes, a small one, and a truth value that does; a large table that changes late."""

    def __init__(self, late=99):
        super().__init__()
        self.late = late
        self.head = nn.Linear(COLUMNS, 3)
        self.register_buffer("large", torch.full((70, 70), -torch.inf), persistent=False)
        self.register_buffer("small", torch.tensor([0.1, -torch.inf]))
        self.register_buffer("seen", torch.tensor(False))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        if self.training:
            self.seen = torch.tensor(True)
            self.calls += 1
            if self.calls == self.late:
                self.large[0, 0] = 1
        return self.head(x) * self.small[0]


def test_what_does_not_change_stays_the_same_to_the_bit():
    result = trained(AllReduce(), Masked(), workers=3)
    found = result.outcomes[0].buffers
    assert_array_equal(found.values, np.array([0.1, -np.inf], "f4"), "a large one does not travel")
    assert found.counts.tolist() == [1, 8]
    with pytest.raises(Exception, match="changed its buffer 'large', which it did not on its first batch"):
        trained(AllReduce(), Masked(late=5), workers=2)


@pytest.mark.parametrize("persistent", [True, False])
def test_a_buffer_that_grows_is_refused_unless_it_is_the_modules_own(persistent):
    class Growing(nn.Linear):
        def __init__(self):
            super().__init__(COLUMNS, 3)
            self.register_buffer("seen", torch.zeros(2), persistent=persistent)

        def forward(self, x):
            self.seen = torch.zeros(2 + len(x))
            return super().forward(x)

    if persistent:
        with pytest.raises(ValueError, match=r"buffer 'seen' has become of shape \(7,\), but was of shape \(2,\)"):
            network(Growing())
    else:
        assert not len(trained(Serial(), Growing(), workers=1).outcomes[0].buffers or ())


@pytest.mark.parametrize("rule", ["average", "local"])
@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(3)], ids=repr)
def test_a_run_goes_on_from_a_checkpoint_with_the_same_statistics_and_dropout(strategy, rule, tmp_path):
    undisturbed = trained(strategy, normed(0.2), rule)
    trained(strategy, normed(0.2), rule, saving=saving(tmp_path))
    middle = origin(tmp_path, 0)
    assert 0 < middle.step < undisturbed.outcomes[0].step
    after = trained(strategy, normed(0.2), rule, origin=middle)
    for mine, other in zip(after.outcomes, undisturbed.outcomes, strict=True):
        assert_array_equal(mine.params, other.params)
        assert_array_equal(mine.buffers.values, other.buffers.values)
        assert_array_equal(mine.buffers.counts, other.buffers.counts)
