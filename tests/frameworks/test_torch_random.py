"""Dropout and other randomness of PyTorch modules: a function of seed, step and rank, and nobody else's."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from frameworks.torch_modules import CASES, COLUMNS, Case, built, made
from runtime import harness
from scaleml import TorchModel
from scaleml.frameworks import torch_network
from scaleml.strategies import AllReduce, Gossip


def streams():
    """What the process's own streams stand at."""
    return random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()  # noqa: NPY002


class Skipping(nn.Linear):
    """Draws from Python's and NumPy's streams in training."""

    def forward(self, x):
        scale = random.random() + np.random.rand() if self.training else 1.0  # noqa: NPY002
        return super().forward(x) * scale


@pytest.mark.parametrize(
    "case", [CASES["norm and dropout"], Case(lambda: Skipping(COLUMNS, 3))], ids=["torch", "others"]
)
def test_random_numbers_are_those_of_the_place(case):
    network, x, y = built(case)
    other, _, _ = built(case)
    w = network.init(0)

    def gradient(own, *place):
        own.at(*place)
        out = np.empty(own.size, "f4")
        own.loss_grad(w, x, y, None, out)
        return out

    first = gradient(network, 3, 5, 1)
    states = streams()
    gradient(network, 3, 6, 1)
    assert_array_equal(gradient(network, 3, 5, 1), first, "whatever was drawn before")
    assert_array_equal(gradient(other, 3, 5, 1), first, "by another process, too")
    for place in [(4, 5, 1), (3, 4, 1), (3, 5, 0), (5, 3, 1)]:
        assert not np.array_equal(gradient(network, *place), first)
    assert streams() == states


def test_a_module_that_draws_nothing_is_left_alone(monkeypatch):
    network, x, y = built(CASES["lstm"])
    monkeypatch.setattr(torch_network, "drawing", None)
    network.loss_grad(network.init(0), x, y, None, np.empty(network.size, "f4"))


@pytest.mark.parametrize("strategy", [AllReduce(), Gossip()], ids=repr)
def test_ranks_of_one_process_draw_apart(strategy):
    """On threads that share PyTorch's stream: each draws what is its own, and the run has the same bits again."""
    case = CASES["norm and dropout"]
    x, y = case.data(60)
    first, again, other = (
        harness.on_threads(TorchModel(made(case), case.loss), x, y, strategy=strategy, batch_size=20, seed=seed).params
        for seed in (0, 0, 1)
    )
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)
