"""The flat model of a PyTorch module: its gradients against PyTorch's own and finite differences, in views and by parts."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from frameworks.torch_modules import CASES, COLUMNS, TOKENS, Case, N, built, by_hand, made, perceptron, signature
from scaleml import TorchModel
from scaleml.frameworks import layout
from scaleml.frameworks.torch_random import key_of
from scaleml.models import FlatModel, Signature
from scaleml.models.flat_model import Layered, NamesScore, Probabilistic, Scoring, Stochastic


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_pytorchs(name, weighted):
    case = CASES[name]
    network, x, y = built(case, "float64")
    weights = np.linspace(0, 2, N) if weighted else None
    w, out = network.init(0), np.full(network.size, np.nan)
    network.at(7, 5, 1)
    loss, mass = network.loss_grad(w, x, y, weights, out)
    module = made(case).double()
    torch.manual_seed(key_of(7, 5, 1, 1))  # of the dropout
    expected = by_hand(case, module, x, y, weights)
    expected.backward()
    trained = [one for one in module.parameters() if one.requires_grad]
    grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in trained]
    assert_allclose(out / mass, np.concatenate([one.numpy().ravel() for one in grads]), rtol=1e-10, atol=1e-15)
    assert_allclose(loss / mass, expected.item(), rtol=1e-12)
    assert mass == (N if weights is None else weights.sum())
    assert_array_equal(w, network.init(0), "the parameters are only read")


@pytest.mark.parametrize("name", [name for name in CASES if name != "norm and dropout"])
def test_the_gradient_is_that_of_finite_differences(name):
    network, x, y = built(CASES[name], "float64")
    w = network.init(0)
    out, nothing = np.empty(network.size), np.empty(network.size)
    network.loss_grad(w, x, y, None, out)
    for direction in np.random.default_rng(0).standard_normal((3, network.size)):
        step = 1e-6 * direction
        up, down = (network.loss_grad(w + sign * step, x, y, None, nothing)[0] for sign in (1, -1))
        assert_allclose(out @ direction, (up - down) / 2e-6, rtol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_contract(name):
    network, x, y = built(CASES[name])
    assert isinstance(network, FlatModel)
    assert all(isinstance(network, kind) for kind in (Layered, Scoring, Probabilistic, NamesScore, Stochastic))
    w, whole, part = network.init(1), np.empty(network.size, "f4"), np.empty(network.size, "f4")
    final = []
    loss, mass = network.loss_grad(w, x, y, None, whole, final.append)
    assert final == [*reversed(network.parts)]
    halves = [slice(0, 4), slice(4, N)]
    if name != "norm and dropout":
        pieces = [(*network.loss_grad(w, x[rows], y[rows], None, part), part.copy()) for rows in halves]
        assert_allclose(sum(each[2] for each in pieces), whole, rtol=1e-4, atol=1e-5)
        assert_allclose(sum(each[0] for each in pieces), loss, rtol=1e-5)
    assert mass == N
    nothing = network.statistics(w, x[:0], y[:0])
    assert np.isnan(network.summarise(nothing)).all()
    assert network.predict(w, x[:0]).shape == (0, *network.predict(w, x).shape[1:])
    assert_allclose(
        sum((network.statistics(w, x[rows], y[rows]) for rows in halves), nothing),
        network.statistics(w, x, y), rtol=1e-5, atol=1e-5,
    )  # fmt: skip
    for again in (pickle.loads(pickle.dumps(network)), copy.copy(network)) if name != "norm and dropout" else ():
        assert_array_equal(again.predict(w, x), network.predict(w, x))
    names, slices = zip(*network.named_parts, strict=True)
    assert [part.start for part in slices] == [0, *(part.stop for part in slices[:-1])]
    assert len(set(names)) == len(names)


def test_tied_parameters_are_one_and_frozen_ones_are_none():
    tied, _, _ = built(CASES["tied"])
    assert [name for name, _ in tied.named_parts] == ["embed.weight", "mix.weight", "mix.bias"]
    frozen, _, _ = built(CASES["frozen"])
    assert frozen.named_parts[0][0] == "head.weight"
    w = frozen.init(0) * 2
    module = frozen.module(w)
    assert_array_equal(module.head.weight.detach().numpy().ravel(), w[:18])
    assert_array_equal(module.fixed.weight.numpy(), made(CASES["frozen"]).fixed.weight.numpy())
    assert [one.requires_grad for one in module.parameters()] == [False, False, True, True, True, True]
    assert not module.training
    both = tied.module(tied.init(0) + 1)
    assert both.embed.weight is both.output.weight


def test_parameters_and_gradients_are_views(monkeypatch):
    """Not copied in a step: neither a pointer moves, nor do gradients come in memory of their own."""
    network, x, y = built(CASES["convolutional"])
    w, out = network.init(0), np.empty(network.size, "f4")
    network.loss_grad(w, x, y, None, out)
    module = network._binding.module
    assert all(np.shares_memory(one.detach().numpy(), w) for one in module.parameters())
    assert all(np.shares_memory(one.grad.numpy(), out) for one in module.parameters())
    first = out.copy()
    network.loss_grad(w, x, y, None, out)
    assert_array_equal(out, first, "nothing gathers from step to step")
    other = np.empty_like(out)
    w *= 2
    network.loss_grad(w, x, y, None, other)
    fresh, _, _ = built(CASES["convolutional"])
    fresh.loss_grad(w.copy(), x, y, None, first)
    assert_array_equal(other, first, "it follows what becomes of the vector, and another buffer")
    w.flags.writeable = False
    network.loss_grad(w.copy(), x, y, None, out)
    network.loss_grad(w, x, y, None, out)
    assert_array_equal(out, first, "vectors that are only to be read serve, too")


def test_parts_become_final_layer_by_layer(monkeypatch):
    """A tied parameter is final when all that use it are done: with the first layer here, though the last one uses it, too."""
    monkeypatch.setattr(layout, "ENOUGH", 1)
    network, x, y = built(CASES["tied"])
    w, out = network.init(0), np.empty(network.size, "f4")
    network.loss_grad(w, x, y, None, out)
    seen = []
    network.loss_grad(w, x, y, None, out, lambda part: seen.append((part, out[part].copy())))
    assert [part for part, _ in seen] == [slice(TOKENS * 5, network.size), slice(0, TOKENS * 5)]
    for part, grad in seen:
        assert_array_equal(grad, out[part])
    network, x, y = built(CASES["transformer"])
    seen = []
    network.loss_grad(network.init(0), x, y, None, np.empty(network.size, "f4"), seen.append)
    assert seen == [*reversed(network.parts)]
    assert len(seen) > 4


def test_small_layers_are_sent_together():
    own = layout.Layout(("a.weight", "b.weight", "b.bias", "c.weight"), ((9,), (200, 100), (200,), (30, 10)))
    assert own.parts == (slice(0, 9), slice(9, 20509))
    assert layout.Layout(("a.w", "b.w"), ((3, 2), (2, 4)), leading=-1).matrices == ((0, 3, 2), (6, 2, 4))


def test_a_factory_is_called_under_the_seed():
    make = CASES["lstm"].make
    network = TorchModel(make, "cross_entropy").build(signature(CASES["lstm"]))
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, again, other = network.init(1), network.init(1), network.init(2)
    assert torch.equal(torch.random.get_rng_state(), state), "the process's own stream goes on as if nothing had been"
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    torch.manual_seed(1)
    expected = torch.cat([one.detach().ravel() for one in make().parameters()])
    assert_array_equal(first, expected.numpy())


def test_a_module_is_copied_and_keeps_its_weights():
    module = perceptron()
    network = TorchModel(module, "cross_entropy").build(Signature(COLUMNS, 3, "multiclass"))
    before = [one.detach().clone() for one in module.parameters()]
    assert_array_equal(network.init(0), network.init(9))
    w = network.init(0)
    x, y = Case(perceptron).data(N)
    network.loss_grad(w, x, y.astype("i4"), None, np.empty(network.size, "f4"))
    w += 1
    for one, kept in zip(module.parameters(), before, strict=True):
        assert one.grad is None
        assert torch.equal(one, kept)
