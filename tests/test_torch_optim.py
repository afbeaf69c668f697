"""The same parameters as `torch.optim` after the same gradients: optimizers, clipping, schedules, parameter groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from optim_cases import ALGORITHMS, names, problem
from scaleml.optim import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Averaged,
    CosineAnnealing,
    Group,
    LinearDecay,
    StepDecay,
    Warmup,
    clip,
    segments_of,
)

torch = pytest.importorskip("torch")
lr_scheduler = torch.optim.lr_scheduler

PARTS = (
    ("conv.weight", slice(0, 9)),
    ("conv.bias", slice(9, 12)),
    ("norm.weight", slice(12, 15)),
    ("norm.bias", slice(15, 18)),
    ("fc.weight", slice(18, 28)),
    ("fc.bias", slice(28, 31)),
)
CLOSE = {"float32": {"rtol": 2e-5, "atol": 1e-6}, "float64": {"rtol": 1e-12, "atol": 1e-14}}
"""Of 24 updates; the rounding of one is the machine's."""


def theirs(optimizer, groups):
    """Return PyTorch's optimizer with the same settings, for groups of parameters."""
    common = {"lr": optimizer.learning_rate, "weight_decay": optimizer.weight_decay}
    if isinstance(optimizer, SGD):
        return torch.optim.SGD(groups, momentum=optimizer.momentum, nesterov=optimizer.nesterov, **common)
    if isinstance(optimizer, AdaGrad):
        return torch.optim.Adagrad(groups, eps=optimizer.epsilon, **common)
    kind = torch.optim.AdamW if isinstance(optimizer, AdamW) else torch.optim.Adam
    return kind(groups, betas=(optimizer.beta_1, optimizer.beta_2), eps=optimizer.epsilon, **common)


def trained(optimizer, dtype, scheduler=None, groups=None, *, pace=6, epochs=4):
    """Return our parameters and PyTorch's after so many epochs of as many updates."""
    w, gradients = problem(31, pace * epochs, dtype)
    named = {name: torch.nn.Parameter(torch.tensor(w[part])) for name, part in PARTS}
    other = theirs(optimizer, [*named.values()] if groups is None else groups(named))
    follow = None if scheduler is None else scheduler(other)
    state = optimizer.init(len(w), dtype)
    optimizer.follow_run(state, updates=0, done=0.0, pace=pace, epochs=epochs)
    segments = segments_of(optimizer, PARTS)
    for t, g in enumerate(gradients, 1):
        for name, part in PARTS:
            named[name].grad = torch.tensor(g[part])
        if optimizer.clip_norm is not None:
            norm = float(
                np.linalg.norm(g.astype("f8"))
            )  # PyTorch divides by the norm and 1e-6, which is taken out again
            torch.nn.utils.clip_grad_norm_(named.values(), optimizer.clip_norm * (1 + 1e-6 / norm))
            clip(g, optimizer.clip_norm)
        optimizer.apply(w, g, state, t, segments=segments)
        other.step()
        if follow is not None:
            follow.step()
    return w, np.concatenate([parameter.detach().numpy() for parameter in named.values()])


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("clip_norm", [None, 1.5])
@pytest.mark.parametrize("optimizer", ALGORITHMS, ids=names)
def test_optimizers(optimizer, clip_norm, dtype):
    assert_allclose(*trained(replace(optimizer, clip_norm=clip_norm), dtype), **CLOSE[dtype])


def after(warmup, second):
    """Return a linear warm-up of so many updates, and then another scheduler."""

    def scheduler(other):
        first = lr_scheduler.LambdaLR(other, lambda k: (k + 1) / warmup)
        return lr_scheduler.SequentialLR(other, [first, second(other)], [warmup])

    return scheduler


SCHEDULES = {
    "cosine to the end of the run": (CosineAnnealing(), lambda o: lr_scheduler.CosineAnnealingLR(o, 24)),
    "cosine to a part of the rate": (
        CosineAnnealing(minimum=0.2),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 24, eta_min=0.2 * 0.1),
    ),
    "warm-up in updates": (Warmup(updates=5), lambda o: lr_scheduler.LambdaLR(o, lambda k: min(1.0, (k + 1) / 5))),
    "warm-up from a third": (
        Warmup(updates=6, start=1 / 3),
        lambda o: lr_scheduler.LambdaLR(o, lambda k: min(1.0, (1 + 2 * min(1.0, (k + 1) / 6)) / 3)),
    ),
    "warm-up, then cosine": (
        Warmup(epochs=1, then=CosineAnnealing()),
        after(6, lambda o: lr_scheduler.CosineAnnealingLR(o, 18)),
    ),
    "warm-up, then linear": (
        Warmup(updates=4, then=LinearDecay()),
        after(4, lambda o: lr_scheduler.LinearLR(o, 1.0, 1e-30, 20)),
    ),
    "warm restarts": (
        CosineAnnealing(updates=5, restarts=True),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5),
    ),
    "longer and longer restarts": (
        CosineAnnealing(updates=3, restarts=True, growth=2, minimum=0.01),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2, eta_min=0.01 * 0.1),
    ),
    "steps": (StepDecay((1, 3), 0.5), lambda o: lr_scheduler.MultiStepLR(o, [6, 18], 0.5)),
}


@pytest.mark.parametrize("case", SCHEDULES)
@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), AdamW(0.1, 0.3)], ids=names)
def test_schedules(optimizer, case):
    ours, scheduler = SCHEDULES[case]
    assert_allclose(*trained(replace(optimizer, schedule=ours), "float64", scheduler), rtol=1e-11)


def grouped(named):
    """Return PyTorch's form of the groups below."""
    return [
        {"params": [named["conv.weight"]], "lr": 0.02, "weight_decay": 0.7},
        {"params": [named["conv.bias"]], "lr": 0.02, "weight_decay": 0.0},
        {"params": [named["norm.weight"], named["norm.bias"], named["fc.bias"]], "weight_decay": 0.0},
        {"params": [named["fc.weight"]], "weight_decay": 0.7},
    ]


GROUPS = {
    "groups": [Group("conv.*", learning_rate=0.02), Group("*.weight", weight_decay=0.7)],
    "no_decay": ("*bias", "norm*"),
}


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize(
    "optimizer", [SGD(0.1, momentum=0.9, nesterov=True), Adam(0.1), AdamW(0.1), AdaGrad(0.1)], ids=names
)
def test_groups(optimizer, dtype):
    schedule = Warmup(updates=6, then=CosineAnnealing())
    optimizer = replace(optimizer, weight_decay=0.3, schedule=schedule, clip_norm=1.5, **GROUPS)
    scheduler = after(6, lambda o: lr_scheduler.CosineAnnealingLR(o, 18))
    assert_allclose(*trained(optimizer, dtype, scheduler, grouped), **CLOSE[dtype])


def test_an_average_has_the_groups_of_what_it_averages():
    w, gradients = problem(31, 3)
    optimizer = AdamW(0.1, **GROUPS)
    found = []
    for rule in (optimizer, Averaged(optimizer)):
        state, v = rule.init(len(w), "f8"), w.copy()
        for t, g in enumerate(gradients, 1):
            rule.apply(v, g.copy(), state, t, segments=segments_of(rule, PARTS))
        found.append(v)
    assert_allclose(*found, rtol=0)
