"""Runs of PyTorch modules against a training loop written by hand, on the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frameworks.torch_modules import CASES, by_hand, made
from runtime import harness, reference
from scaleml import TorchModel
from scaleml.frameworks.torch_random import key_of
from scaleml.optim import SGD, Adam
from scaleml.strategies import AllReduce, Serial

ROWS, BATCH, EPOCHS, SHARDS = 63, 20, 2, 4
EXACT = {"float32": 1e-5, "float64": 1e-10}
OPTIMIZERS = {
    "sgd": (SGD(0.1, momentum=0.9), lambda w: torch.optim.SGD(w, 0.1, momentum=0.9)),
    "adam": (Adam(0.01), lambda w: torch.optim.Adam(w, 0.01)),
}


def loop(case, optimizer, dtype):
    """Train as a tutorial does: zero_grad, forward, loss, backward, step."""
    x, y = case.data(ROWS, dtype)
    problem = reference.Problem(x, y, (), "", shards=SHARDS)
    module = made(case).to(getattr(torch, dtype))
    rule = OPTIMIZERS[optimizer][1]([one for one in module.parameters() if one.requires_grad])
    for step, parts in enumerate(problem.batches(EPOCHS, BATCH)):
        torch.manual_seed(key_of(0, step, 0, 1))  # of dropout: seed, step, rank, and which gradient of the step
        rows = np.concatenate(parts)
        rule.zero_grad()
        by_hand(case, module, problem.x[rows].astype(x.dtype), problem.y[rows].astype(dtype)).backward()
        rule.step()
    return torch.cat([one.detach().ravel() for one in module.parameters() if one.requires_grad]).numpy()


@pytest.mark.parametrize(("optimizer", "dtype"), [("sgd", "float32"), ("adam", "float64")])
@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        (name, ranks)
        for name in CASES
        for ranks in (1, 2)
        if name != "tied" and (name, ranks) != ("norm and dropout", 2)
    ],
)  # on two ranks each normalises by its own rows, and drops others
def test_a_run_is_the_loop_by_hand(name, optimizer, dtype, ranks):
    case = CASES[name]
    x, y = case.data(ROWS, dtype)
    found = harness.on_threads(
        TorchModel(made(case), case.loss, dtype=dtype), x, y, strategy=AllReduce() if ranks > 1 else Serial(),
        workers=ranks, optimizer=OPTIMIZERS[optimizer][0], epochs=EPOCHS, batch_size=BATCH, shards=SHARDS,
    )  # fmt: skip
    expected = loop(case, optimizer, dtype)
    np.testing.assert_allclose(found.params, expected, rtol=EXACT[dtype], atol=EXACT[dtype] * abs(expected).max())
