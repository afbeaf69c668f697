"""Losses of PyTorch modules, by name and of one's own, and what is said of outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.nn import functional

import scaleml
from frameworks.torch_modules import CASES, COLUMNS, TOKENS, Case, N, Tied, built, made, perceptron
from scaleml import TorchModel
from scaleml.models import Signature


@pytest.mark.parametrize("clash", [False, True])
def test_classes_may_be_the_second_axis_or_the_last(clash):
    """As PyTorch has it (rows, classes, tokens), and as language models return it."""

    class Moved(Tied):
        def forward(self, tokens):
            return super().forward(tokens).movedim(-1, 1)

    width = TOKENS if clash else COLUMNS
    kind = np.dtype(("i8", (width,)))
    found = Signature(width, width, "regression", row=kind, target=kind)
    with torch.random.fork_rng():
        models = [TorchModel(made(Case(make)), "cross_entropy") for make in (Tied, Moved)]
    if clash:
        for model in models:
            with pytest.raises(ValueError, match="cannot be told"):
                model.build(found)
        return
    x, y = CASES["tied"].data(N)
    y[:, :3] = -100  # padding counts nowhere
    grads = []
    for network in (model.build(found) for model in models):
        w, out = network.init(0), np.empty(network.size, "f4")
        loss, mass = network.loss_grad(w, x, y, None, out)
        assert mass == pytest.approx(N * 9 / 12)
        grads.append(out / mass)
        right = (network.predict(w, x) == y)[:, 3:].mean()
        assert network.summarise(network.statistics(w, x, y)) == pytest.approx((loss / mass, right))
        assert network.predict_proba(w, x).shape == network.scores(w, x).shape
    assert_allclose(grads[0], grads[1], rtol=1e-5, atol=1e-7)
    module = made(Case(Tied))
    functional.cross_entropy(module(torch.tensor(x)).reshape(-1, TOKENS), torch.tensor(y).reshape(-1)).backward()
    assert_allclose(grads[0][:35], module.embed.weight.grad.numpy().ravel(), rtol=1e-5, atol=1e-7)


def test_scores_and_probabilities():
    binary, x, _ = built(CASES["two classes"])
    w = binary.init(0)
    logits = made(CASES["two classes"])(torch.tensor(x))[:, 0]
    assert_allclose(binary.scores(w, x), logits.detach(), rtol=1e-5)
    assert_allclose(binary.predict_proba(w, x)[:, 1], torch.sigmoid(logits).detach(), rtol=1e-5)
    assert_array_equal(binary.predict(w, x), (logits > 0).int())
    two, x, y = built(CASES["two outputs"])
    w = two.init(0)
    assert_allclose(two.predict_proba(w, x)[:, 1], 1 / (1 + np.exp(-two.scores(w, x))), rtol=1e-5)
    assert two.summarise(two.statistics(w, x, y))[1] == np.mean(two.predict(w, x) == y)
    one, x, y = built(CASES["one number"])
    assert one.predict(one.init(0), x).shape == y.shape
    assert one.score_name == "R2"
    with pytest.raises(ValueError, match="numbers, not probabilities"):
        one.predict_proba(one.init(0), x)


def test_r_squared_is_scikit_learns():
    from sklearn.metrics import r2_score

    network, x, y = built(CASES["numbers"], "float64")
    w, weights = network.init(0), np.linspace(0, 2, N)
    found = network.summarise(network.statistics(w, x, y, weights))[1]
    assert found == pytest.approx(r2_score(y, network.predict(w, x), sample_weight=weights))


def test_losses_of_ones_own():
    """A mean, a sum and a loss a row are told apart, and are the same to a run."""
    case = CASES["numbers"]

    def rows(output, y):
        return ((output - y) ** 2).sum(1)

    found = []
    for loss in (lambda o, y: rows(o, y).mean(), lambda o, y: rows(o, y).sum(), rows):
        network, x, y = built(Case(case.make, loss, "regression", 3), "float64")
        out = np.empty(network.size)
        found.append((network.loss_grad(network.init(0), x, y, None, out), out))
        assert network.score_name == "R2"
    for totals, out in found[1:]:
        assert_allclose(totals, found[0][0])
        assert_allclose(out, found[0][1])
    weights = np.linspace(0, 2, N)
    loss, mass = network.loss_grad(network.init(0), x, y, weights, out)
    module = made(case).double()
    assert_allclose(
        (loss, mass), ((weights * rows(module(torch.tensor(x)), torch.tensor(y)).detach().numpy()).sum(), N)
    )
    network, x, y = built(Case(case.make, lambda o, y: rows(o, y).mean(), "regression", 3), "float64")
    with pytest.raises(ValueError, match=r"return a loss for each row.*or leave sample_weight out"):
        network.loss_grad(network.init(0), x, y, weights, out)


def test_class_weights_of_torch_nn():
    """The mean is PyTorch's: divided by the weights of the classes, over all parts of a batch."""
    case, weight = CASES["convolutional"], torch.tensor([1.0, 2.0, 5.0])
    own = nn.CrossEntropyLoss(weight, label_smoothing=0.1)
    network, x, y = built(Case(case.make, own), "float64")
    parts = [np.empty(network.size) for _ in range(2)]
    found = [
        network.loss_grad(network.init(0), x[rows], y[rows], None, out)
        for rows, out in zip([slice(0, 4), slice(4, N)], parts, strict=True)
    ]
    module = made(case).double()
    exact = nn.CrossEntropyLoss(weight.double(), label_smoothing=0.1)
    expected = exact(module(torch.tensor(x)), torch.tensor(y).long())
    expected.backward()
    loss, mass = np.sum(found, axis=0)
    assert_allclose(loss / mass, expected.item())
    assert_allclose(sum(parts)[-3:] / mass, module.head.bias.grad)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("more", [{}, {"weight": [1.0, 5.0, 2.0]}, {"label_smoothing": 0.1}])
def test_a_class_that_is_ignored(task, more):
    """With one label a row, over parts of a batch, one of which has that class alone: three steps are PyTorch's own."""
    outputs = 3 if task == "multiclass" else 2
    if "weight" in more:
        more = {"weight": torch.tensor(more["weight"][:outputs])}
    own = nn.CrossEntropyLoss(ignore_index=1, **more)
    network, x, y = built(Case(lambda: perceptron(outputs), own, task, outputs if outputs == 3 else 1), "float64")
    y = np.sort(y)
    parts = [np.flatnonzero(y == 1)[:3], np.setdiff1d(np.arange(N), np.flatnonzero(y == 1)[:3])]
    module = made(Case(lambda: perceptron(outputs))).double()
    exact = nn.CrossEntropyLoss(ignore_index=1, **{name: getattr(own.double(), name) for name in more})
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    w, out = network.init(0), np.empty(network.size)
    for _ in range(3):
        totals, gradient = np.zeros(2), np.zeros(network.size)
        for rows in parts:
            totals += network.loss_grad(w, x[rows], y[rows], None, out)
            gradient += out
        optimizer.zero_grad()
        expected = exact(module(torch.tensor(x)), torch.tensor(y).long())
        expected.backward()
        optimizer.step()
        assert_allclose(totals[0] / totals[1], expected.item())
        w = w - 0.1 * gradient / totals[1]
    assert_allclose(w, np.concatenate([one.detach().numpy().ravel() for one in module.parameters()]))
    right = (network.predict(w, x) == y)[y != 1].mean()
    assert network.summarise(network.statistics(w, x, y))[1] == pytest.approx(right)


@pytest.mark.parametrize(
    ("labels", "ignored", "words"),
    [
        ([0, 1, 2], 1, ""),
        ([0, 1, 2], 255, ""),
        ([False, True], 0, ""),
        (["a", "b"], -100, ""),
        (["a", "b"], 1, "its class with the code 1 is b"),
        ([1, 2, 3], 2, "would make a class of 2 or ignore another"),
        ([1, 2, 3], 0, "its class with the code 0 is 1"),
        ([-1, 0, 1], -1, "would make a class of -1"),
        ([-100, 0, 1], -100, "leave the rows that are to be ignored out"),
    ],
)
def test_the_class_to_ignore_is_a_code(labels, ignored, words):
    model = TorchModel(made(Case(perceptron)), nn.CrossEntropyLoss(ignore_index=ignored))
    if not words:
        model.check_labels(np.array(labels))
        return
    with pytest.raises(ValueError, match=words):
        model.check_labels(np.array(labels))


def test_runs_check_the_class_to_ignore():
    x = np.zeros((6, COLUMNS), "f4")
    with pytest.raises(ValueError, match="its class with the code 1 is b"):
        scaleml.train(TorchModel(made(Case(perceptron)), nn.CrossEntropyLoss(ignore_index=1)), x, list("abcabc"))
