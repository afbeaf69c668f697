"""Modules as tutorials have them, of tiny size, for rows of twelve numbers, and the data that each is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from scaleml import TorchModel
from scaleml.models import Signature

COLUMNS, TOKENS, N = 12, 7, 9


class Conv(nn.Module):
    """Two convolutions, pooled."""

    def __init__(self, outputs=3):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 5, (2, 3), bias=False)
        self.head = nn.Linear(5, outputs)

    def forward(self, x):
        x = torch.relu(self.first(x.view(-1, 1, 3, 4)))
        return self.head(torch.tanh(self.second(x)).mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM over four times three numbers."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        states, _ = self.lstm(x.view(-1, 4, 3))
        return self.head(states[:, -1])


class Transformer(nn.Module):
    """One encoder layer over four times three numbers, with its places."""

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.randn(4, 6) / 10)
        self.embed = nn.Linear(3, 6)
        self.encoder = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x.view(-1, 4, 3)) + self.places).mean(1))


class Tied(nn.Module):
    """A next-token model whose output layer is its embedding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(TOKENS, 5)
        self.mix = nn.Linear(5, 5)
        self.output = nn.Linear(5, TOKENS, bias=False)
        self.output.weight = self.embed.weight

    def forward(self, tokens):
        return self.output(torch.tanh(self.mix(self.embed(tokens.long()))))


class Frozen(nn.Module):
    """A fixed projection and a trained head, of which one branch is never taken."""

    def __init__(self):
        super().__init__()
        self.fixed = nn.Linear(COLUMNS, 6).requires_grad_(False)
        self.head = nn.Linear(6, 3)
        self.never = nn.Linear(6, 3)

    def forward(self, x):
        h = torch.relu(self.fixed(x))
        return self.head(h) if h.ndim == 2 else self.never(h)


class Normed(nn.Module):
    """Batch normalisation and dropout."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(COLUMNS, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.body(x))


def perceptron(outputs=3, width=6):
    return nn.Sequential(nn.Linear(COLUMNS, width), nn.Tanh(), nn.Linear(width, outputs))


@dataclass(frozen=True)
class Case:
    """A module, its loss, and what its rows and targets look like: three classes if nothing else is said."""

    make: Any
    loss: Any = "cross_entropy"
    task: str = "multiclass"
    outputs: int = 3
    tokens: bool = False

    def data(self, rows, dtype="float32"):
        """Return X (rows, 12) and y, which X has something to do with."""
        rng = np.random.default_rng(7)
        x = rng.standard_normal((rows, COLUMNS)).astype(dtype)
        z = x @ rng.standard_normal((COLUMNS, 3)).astype(dtype)
        if self.tokens:
            x = rng.integers(0, TOKENS, (rows, COLUMNS))
            return x, (x + 1) % TOKENS
        if self.task == "multiclass":
            return x, z.argmax(1)
        if self.task == "binary":
            return x, (z[:, 0] > 0).astype(int)
        return x, z[:, : self.outputs] if self.outputs > 1 else z[:, 0]


CASES = {
    "convolutional": Case(Conv),
    "lstm": Case(Recurrent),
    "transformer": Case(Transformer),
    "tied": Case(Tied, task="regression", outputs=COLUMNS, tokens=True),
    "frozen": Case(Frozen),
    "norm and dropout": Case(Normed),
    "two classes": Case(lambda: perceptron(1), "bce_with_logits", "binary", 1),
    "two outputs": Case(lambda: perceptron(2), nn.CrossEntropyLoss(), "binary", 1),
    "one number": Case(lambda: perceptron(1), "mse", "regression", 1),
    "numbers": Case(perceptron, nn.HuberLoss(delta=0.5), "regression", 3),
}


def made(case, seed=0):
    """Return a module of a case, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return case.make()


def signature(case, dtype="float32"):
    if case.tokens:
        return Signature(
            COLUMNS, COLUMNS, "regression", dtype, row=np.dtype(("i8", (COLUMNS,))), target=np.dtype(("i8", (COLUMNS,)))
        )
    return Signature(COLUMNS, case.outputs, case.task, dtype)


def built(case, dtype="float32", **settings):
    """Return the flat model of a case, and its data as ranks get it."""
    network = TorchModel(made(case), case.loss, dtype=dtype, **settings).build(signature(case, dtype))
    x, y = case.data(N, dtype)
    kind = {"multiclass": "i4"}.get(case.task, None if case.tokens else dtype)
    return network, x, y if kind is None else y.astype(kind)


def by_hand(case, module, x, y, weights=None):
    """Return the mean loss as a tutorial would write it, for a module in training or not."""
    x, y = torch.tensor(x), torch.tensor(y)
    output = module(x)
    reduction = "none" if weights is not None else "mean"
    if case.tokens:
        losses = functional.cross_entropy(output.reshape(-1, TOKENS), y.reshape(-1), reduction=reduction)
        losses = losses.reshape(len(x), -1).mean(1) if weights is not None else losses
    elif case.task == "multiclass" or isinstance(case.loss, nn.CrossEntropyLoss):
        losses = functional.cross_entropy(output, y.long(), reduction=reduction)
    elif case.task == "binary":
        losses = functional.binary_cross_entropy_with_logits(output[:, 0], y, reduction=reduction)
    elif case.outputs == 1:
        losses = functional.mse_loss(output[:, 0], y, reduction=reduction)
    else:
        losses = functional.huber_loss(output, y, delta=0.5, reduction=reduction)
        losses = losses.mean(1) if weights is not None else losses
    return losses if weights is None else (losses * torch.tensor(weights)).sum() / float(weights.sum())
