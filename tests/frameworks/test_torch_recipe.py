"""The usual recipe for a PyTorch module, against the loop that a tutorial has: AdamW, warm-up and cosine, clipping, parameter groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from runtime import harness, reference
from scaleml import TorchModel
from scaleml.optim import AdamW, CosineAnnealing, Group, Warmup
from scaleml.strategies import AllReduce, ParameterServer, Serial

ROWS, BATCH, EPOCHS, SHARDS, WARM = 120, 24, 3, 2, 4
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((ROWS, 7)).astype("f4")
Y = X[:, :3].argmax(axis=1)
RULE = AdamW(
    0.01,
    weight_decay=0.1,
    clip_norm=1.0,
    schedule=Warmup(updates=WARM, then=CosineAnnealing()),
    groups=[Group("0.*", learning_rate=0.003)],
    no_decay="1d",
)


def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(7, 6), torch.nn.LayerNorm(6), torch.nn.ReLU(), torch.nn.Linear(6, 3)
    )  # fmt: skip


@pytest.fixture(scope="module")
def by_hand():
    """What the tutorial's loop comes to."""
    problem = reference.Problem(X, Y, (), "", shards=SHARDS)
    net, lr_scheduler = module(), torch.optim.lr_scheduler
    groups = [
        {"params": [one], "lr": 0.003 if name.startswith("0.") else 0.01, "weight_decay": 0.1 if one.ndim > 1 else 0.0}
        for name, one in net.named_parameters()
    ]
    rule = torch.optim.AdamW(groups)
    warm = lr_scheduler.LambdaLR(rule, lambda k: (k + 1) / WARM)
    cosine = lr_scheduler.CosineAnnealingLR(rule, EPOCHS * ROWS // BATCH - WARM)
    schedule = lr_scheduler.SequentialLR(rule, [warm, cosine], [WARM])
    for parts in problem.batches(EPOCHS, BATCH):
        rows = np.concatenate(parts)
        rule.zero_grad()
        scores = net(torch.tensor(problem.x[rows], dtype=torch.float32))
        torch.nn.functional.cross_entropy(scores, torch.tensor(problem.y[rows]).long()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), RULE.clip_norm)
        rule.step()
        schedule.step()
    return torch.cat([one.detach().ravel() for one in net.parameters()]).numpy()


@pytest.mark.parametrize(
    ("strategy", "workers", "part_rows"),
    [
        (Serial(), 1, None),
        (Serial(), 1, 5),
        (AllReduce(), 2, None),
        (AllReduce(overlap=True), 2, 8),
        (ParameterServer("bsp", servers=2), 2, None),
    ],
    ids=repr,
)
def test_the_recipe(strategy, workers, part_rows, by_hand):
    found = harness.on_threads(
        TorchModel(module(), "cross_entropy"), X, Y, strategy=strategy, workers=workers, optimizer=RULE, epochs=EPOCHS,
        batch_size=BATCH, shards=SHARDS, part_rows=part_rows,
    )  # fmt: skip
    assert_allclose(found.params, by_hand, rtol=1e-5, atol=1e-6)
