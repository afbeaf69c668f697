"""What newcomers get wrong with PyTorch modules: each is refused at once, by an error that says what to do."""

from __future__ import annotations

import pickle
import threading

import cloudpickle
import dask.array as da
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import scaleml
from frameworks.torch_modules import CASES, COLUMNS, Case, built, made, perceptron
from scaleml import TorchModel
from scaleml.models import Signature

CLASSES = Signature(COLUMNS, 3, "multiclass")
NUMBER = Signature(COLUMNS, 1, "regression")
IMAGE = Signature(48, 3, "multiclass", row=np.dtype(("uint8", (3, 4, 4))))

TEXT = Signature(COLUMNS, 3, "multiclass", row=np.dtype(("U3", (2,))))


class Uncopied(nn.Module):
    """Holds what no pickle can hold."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(COLUMNS, 3)
        self.body.lock = threading.Lock()

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        return self.body(x)


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, output, y):
        return (output[:, 0] - y).abs()


class Detached(nn.Linear):
    def forward(self, x):
        return super().forward(x).detach()


def half():
    return perceptron().half()


def noisy():
    """A factory whose untrained part is another in each call."""
    return nn.Sequential(nn.Linear(COLUMNS, 4).requires_grad_(False), nn.Linear(4, 3))


MADE = {
    "a class that needs arguments": (nn.Linear, "cross_entropy", "is a class that cannot be called without arguments.*lambda: Linear"),
    "a class that is no module": (dict, "mse", "dict, which is no torch.nn.Module"),
    "a state dict": (perceptron().state_dict(), "mse", "load_state_dict it into a module first"),
    "a factory of something else": (lambda: 3, "mse", "returns a int, but a factory has to return"),
    "a wrapped layer": (nn.Sequential(nn.DataParallel(perceptron())), "mse", "the layer '0' is a DataParallel: scaleml divides"),
    "a wrapped module": (nn.DataParallel(perceptron()), "mse", "DataParallel: scaleml divides the rows itself.*module.module"),
    "a lazy module": (nn.LazyLinear(3), "cross_entropy", "has not seen its first input.*call the module once on a batch"),
    "no values": (nn.Linear(COLUMNS, 3, device="meta"), "cross_entropy", "on the device 'meta'.*pass a factory"),
    "nothing to train": (perceptron().requires_grad_(False), "mse", "nothing to train: none of its 4 parameters"),
    "no parameters": (nn.Flatten(), "mse", "nothing to train: it has no parameters"),
    "half precision": (half, "mse", "float16, in which small updates are lost"),
    "double precision": (perceptron().double(), "mse", "float64, but dtype='float32': pass dtype='float64'"),
    "an unknown loss": (perceptron(), "cros_entropy", "Did you mean 'cross_entropy'"),
    "a class for a loss": (perceptron(), nn.MSELoss, "is a class: call it, MSELoss()"),
    "the loss of probabilities": (perceptron(), nn.BCELoss(), "leave out the module's last sigmoid"),
    "a sum": (perceptron(), nn.MSELoss(reduction="sum"), "leave reduction out.*multiply a learning rate"),
    "a number for a loss": (perceptron(), 3, "loss is a int: must be a name"),
    "a loss with parameters": (perceptron(), nn.Linear(2, 1), "make it a part of the module"),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_what_is_no_model(name):
    module, loss, words = MADE[name]
    with pytest.raises((TypeError, ValueError), match=f"(?s){words}"):
        TorchModel(module, loss)


def test_optimizers_are_no_modules_and_no_losses():
    """Made here: the first one imports PyTorch's compiler, which takes seconds."""
    with pytest.raises(TypeError, match="pass the module; the optimizer is train's"):
        TorchModel(torch.optim.SGD(perceptron().parameters(), 0.1), "mse")
    with pytest.raises(TypeError, match="takes the module and the loss"):
        TorchModel(perceptron(), torch.optim.Adam(perceptron().parameters()))


def lstm_alone():
    return nn.LSTM(COLUMNS, 3, batch_first=True)


FIT = {
    "classes and outputs": (perceptron(5), "cross_entropy", CLASSES, "outputs are 5, but y has 3 classes: give its last layer 3"),
    "one output for two classes": (perceptron(1), "cross_entropy", Signature(COLUMNS), "use loss='binary_cross_entropy'"),
    "two outputs for one score": (perceptron(2), "bce", Signature(COLUMNS), r"returns shape \(rows, 2\) for targets of shape \(rows,\)"),
    "three classes, one score": (perceptron(1), "bce", CLASSES, "y has 3 classes: use loss='cross_entropy'"),
    "classes, but numbers": (perceptron(1), "mse", CLASSES, "is for numbers, but y holds labels"),
    "numbers, but classes": (perceptron(), "cross_entropy", NUMBER, "y holds numbers of dtype float32: use loss='mse'"),
    "other targets": (perceptron(3), "mse", Signature(COLUMNS, 2, "regression"), "as many outputs as a row has targets"),
    "wrong columns": (perceptron(), "cross_entropy", Signature(5, 3, "multiclass"), r"rows of shape \(5,\) as float32.* 0: Linear"),
    "images into a linear layer": (perceptron(), "cross_entropy", IMAGE, r"shape \(3, 4, 4\), dtype uint8; the first layer"),
    "a layer without a name": (nn.Linear(5, 3), "cross_entropy", IMAGE, r"rows of shape \(3, 4, 4\) as float32.*parameters is Linear"),
    "a tuple": (lstm_alone(), "cross_entropy", CLASSES, r"returns a tuple.*of an LSTM output\[0\]"),
    "rows mixed up": (nn.Sequential(nn.Linear(COLUMNS, 3), nn.Flatten(0)), "cross_entropy", CLASSES, "first axis must be that of the rows"),
    "no gradient": (Detached(COLUMNS, 3), "cross_entropy", CLASSES, "has no gradient: something between"),
    "a loss that is a float": (perceptron(1), lambda o, y: (o[:, 0] - y).abs().mean().item(), NUMBER, "returns a float: return the"),
    "a vector of another length": (perceptron(1), lambda o, y: torch.cat([o[:, 0], y]), NUMBER, r"returns shape \(10,\) for 5 rows"),
    "broadcast to a matrix": (perceptron(1), lambda o, y: (o - y) ** 2, NUMBER, r"returns shape \(5, 5\).*Use output.squeeze\(1\)"),
    "broadcast and averaged": (perceptron(1), lambda o, y: ((o - y) ** 2).mean(), NUMBER, r"which broadcast.*use output.squeeze"),
    "a loss that fails": (perceptron(2), lambda o, y: o @ y, NUMBER, "cannot take outputs of shape"),
    "a factory that draws": (noisy, "cross_entropy", CLASSES, "draws '0.weight' anew in each call"),
    "what does not travel": (Uncopied(), "cross_entropy", CLASSES, "module.body.lock, a lock, cannot be sent to workers"),
    "a loss that does not travel": (perceptron(1), Locked(), NUMBER, "loss.lock, a lock, cannot be sent"),
    "sparse rows": (perceptron(), "cross_entropy", Signature(COLUMNS, 3, "multiclass", sparse=True), r"pass X.toarray\(\)"),
    "weights of other classes": (perceptron(), nn.CrossEntropyLoss(torch.ones(2)), CLASSES, r"weight of shape \(2,\).*3 classes"),
    "text": (perceptron(), "cross_entropy", TEXT, "such as text as token numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIT)
def test_what_does_not_fit(name):
    module, loss, signature, words = FIT[name]
    model = TorchModel(module, loss)
    with pytest.raises(ValueError, match=f"(?s){words}"):
        model.build(signature)


def test_a_column_of_outputs_beside_plain_targets_is_not_broadcast():
    """The trap of (n, 1) and (n,): here they are the same numbers, in order."""
    network = TorchModel(perceptron(1), "mse").build(NUMBER)
    case = CASES["one number"]
    x, y = case.data(9)
    out = np.empty(network.size, "f4")
    loss, _ = network.loss_grad(network.init(0), x, y, None, out)
    assert loss == pytest.approx(((network.predict(network.init(0), x) - y) ** 2).sum(), rel=1e-5)


class Renewing(nn.Module):
    """Puts another parameter, or other memory, in the place of one in training."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.head = nn.Linear(COLUMNS, 3)

    def forward(self, x):
        if self.training and self.how == "parameter":
            self.head.weight = nn.Parameter(self.head.weight * 2)
        if self.training and self.how == "memory":
            self.head.weight.data = torch.renorm(self.head.weight.data, 2, 0, 1)
        return self.head(x)


@pytest.mark.parametrize("how", ["parameter", "memory"])
def test_parameters_that_a_forward_replaces(how):
    network = TorchModel(Renewing(how), "cross_entropy").build(CLASSES)
    x, y = CASES["convolutional"].data(9)
    with pytest.raises(ValueError, match=r"replaces its parameter 'head\.weight'"):
        network.loss_grad(network.init(0), x, y.astype("i4"), None, np.empty(network.size, "f4"))


def test_outputs_of_another_shape_later():
    class Growing(nn.Linear):
        def forward(self, x):
            return torch.cat([super().forward(x)] * (2 if self.training else 1), 1)

    network = TorchModel(Growing(COLUMNS, 3), "cross_entropy").build(CLASSES)
    x, y = CASES["convolutional"].data(9)
    with pytest.raises(ValueError, match=r"returns shape \(9, 6\) for 9 rows"):
        network.loss_grad(network.init(0), x, y.astype("i4"), None, np.empty(network.size, "f4"))


def test_one_row_for_batch_normalisation():
    network, x, y = built(CASES["norm and dropout"])
    with pytest.raises(ValueError, match="a rank's part of this batch is one row: choose a batch_size that leaves"):
        network.loss_grad(network.init(0), x[:1], y[:1], None, np.empty(network.size, "f4"))


class Choosy(nn.Module):
    """Fails on some rows."""

    def __init__(self):
        super().__init__()
        self.words = nn.ModuleDict({"en": nn.Embedding(9, 3)})

    def forward(self, tokens):
        if tokens.max() == 8:
            raise RuntimeError("no eights")
        return self.words["en"](tokens).mean(1)


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (9, r"^Choosy was given the number 9, but its layer words\.en has num_embeddings=9, vectors of 0 to 8"),
        (-1, "given the number -1"),
        (
            8,
            r"^Choosy raised RuntimeError: no eights \(.*test_torch_mistakes.py, line \d+, in forward: raise .* 3 rows of",
        ),
    ],
)
def test_a_forward_that_fails_for_reasons_of_its_own(token, words):
    """Though it has taken such rows: in training and in predictions, and on a rank, which has a copy."""
    network = TorchModel(Choosy(), "cross_entropy").build(Signature(2, 3, "multiclass", row=np.dtype(("i8", (2,)))))
    x, y = np.array([[0, 1], [1, token], [2, 2]]), np.zeros(3, "i4")
    for own in (network, pickle.loads(cloudpickle.dumps(network))):
        with pytest.raises(ValueError, match=words) as caught:
            own.predict(own.init(0), x)
        assert "does not take" not in str(caught.value)
        with pytest.raises(ValueError, match=words):
            own.loss_grad(own.init(0), x, y, None, np.empty(own.size, "f4"))


def test_a_module_without_its_model():
    with pytest.raises(
        TypeError,
        match=r"model is a module of PyTorch, Sequential: .*scaleml.TorchModel\(module, loss='cross_entropy'\)",
    ):
        scaleml.train(perceptron(), np.zeros((4, COLUMNS)), [0, 1, 2, 0])


def test_settings():
    with pytest.raises(ValueError, match="leave one out"):
        TorchModel(perceptron(), "mse", dtype="float64", compute="bfloat16")
    with pytest.raises(TypeError, match="transform is a float"):
        TorchModel(perceptron(), "mse", transform=1 / 255)
    assert (
        repr(TorchModel(perceptron(), nn.MSELoss(), classifier=True))
        == "TorchModel(Sequential, loss=MSELoss(), classifier=True)"
    )
    assert TorchModel(perceptron(), functional.cross_entropy).is_classifier
    assert not TorchModel(made(Case(perceptron)), lambda o, y: o.mean()).is_classifier


def test_targets_of_another_kind():
    x, words = np.zeros((6, COLUMNS)), np.array(list("abcabc"))
    with pytest.raises(TypeError, match=r"y has dtype <U1, which are labels, .* loss='cross_entropy'"):
        scaleml.train(TorchModel(perceptron(1), "mse"), x, words)
    with pytest.raises(TypeError, match="y has dtype <U1, which are labels"):
        scaleml.train(TorchModel(perceptron(1), "mse"), da.from_array(x, chunks=3), da.from_array(words, chunks=3))
    with pytest.raises(ValueError, match=r"the real number 0\.5 \(row 0\).*of modules and functions 'mse'"):
        scaleml.train(TorchModel(perceptron(), "cross_entropy"), x, np.full(6, 0.5))


def test_probabilities_for_scores():
    model = TorchModel(nn.Sequential(perceptron(), nn.Softmax(1)), "cross_entropy")
    with pytest.warns(UserWarning, match=r"Sequential returns probabilities.*without its last softmax"):
        model.build(CLASSES)
