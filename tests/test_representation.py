"""The repr of settings makes them again, and says what they are and what is not at its default."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import scaleml
from scaleml import compression, faults, linear_model, models, neural_network, optim, strategies
from scaleml.compression import FP16, TopK
from scaleml.faults import Bandwidth, Kill, Latency, Slow
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD, Adam, Averaged, CosineAnnealing, Group, Warmup
from scaleml.strategies import AllReduce, Hogwild, LocalSGD, ParameterServer, Serial, Strategy

NAMES: dict[str, Any] = {
    name: getattr(package, name)
    for package in (strategies, optim, compression, faults, models, linear_model, neural_network)
    for name in package.__all__
} | {"Trial": scaleml.Trial}
BASES = (strategies.Strategy, optim.Optimizer, optim.Schedule, compression.Codec, faults.Fault, models.Model)
KINDS = [
    kind
    for kind in NAMES.values()
    if isinstance(kind, type) and issubclass(kind, BASES) and dataclasses.is_dataclass(kind) and kind not in BASES
]

OTHER: dict[str, tuple[Any, ...]] = {
    # Values that are no default; the second where a class refuses the first.
    "rank": (3,), "to": (1,), "step": (7,), "until": (9,), "seconds": (0.25,), "factor": (2.5,), "part": ("header",),
    "bytes_per_second": (math.inf,), "allow_kill": (True,), "ratio": (0.1,),
    "schedule": ("invscaling", Warmup(updates=9, then=CosineAnnealing())), "power_t": (0.3,),
    "learning_rate": (0.1 + 0.2,), "momentum": (0.9,), "nesterov": (True,), "alpha": (1e-3,), "clip_norm": (5.0,), "tol": (0.5,),
    "n_iter_no_change": (9,), "beta_1": (0.8,), "beta_2": (0.98,), "epsilon": (1e-5,), "start": (4, 0.5),
    "optimizer": (Adam(0.2, clip_norm=1.0),), "loss": ("squared_error",), "penalty": (None,), "l1_ratio": (0.5,),
    "fit_intercept": (False,), "dtype": ("float64",), "multiclass": ("ovr",), "class_weight": ("balanced", {0: 1.0, 1: 2.5}),
    "hidden_layer_sizes": ((8,), (4, 2)), "activation": ("tanh",), "period": (3, None), "outer": (SGD(0.7, momentum=0.9),),
    "start_after": (2,), "compression": (TopK(0.2),), "topology": ("ring", "random"), "overlap": (True,), "threads": (2,),
    "seed": (5,), "consistency": ("bsp", "ssp"), "staleness": (2,), "servers": (2,), "sparse": (True,),
    "staleness_aware": (True,), "asynchronous": (True,), "ftol": (1e-9,), "max_iter": (30,), "memory": (5,), "max_trials": (20,),
    "epsilon_hat": (True,), "weight_decay": (0.3,), "groups": ((Group(("a", "b.*"), 0.5), Group("c", weight_decay=0.0)),),
    "no_decay": (("*bias", "*norm*"),), "epochs": (3.5, (2, 5)), "updates": (40,), "minimum": (0.1,), "restarts": (True,),
    "growth": (2.0,), "then": (CosineAnnealing(),), "decay": (0.5,),
}  # fmt: skip
REQUIRED = {"rank": 2, "step": 5, "factor": 4, "to": 0, "seconds": 0.5, "bytes_per_second": 1e6, "optimizer": SGD(0.3)}


def variants(kind: type) -> list[Any]:
    """Return things of a class: one with little said, and for each setting those with another value of it."""
    settings = [setting for setting in dataclasses.fields(kind) if setting.init]
    needed = {setting.name: REQUIRED[setting.name] for setting in settings if setting.default is dataclasses.MISSING}
    made = [kind(**needed)]
    for setting in settings:
        for value in OTHER[setting.name]:
            try:
                made.append(kind(**needed | {setting.name: value}))
            except ValueError:  # some settings need others
                continue
    return made


THINGS = [thing for kind in KINDS for thing in variants(kind)] + [
    ParameterServer("ssp", staleness=4, servers=2, compression=FP16()),
    LocalSGD(5, outer=SGD(0.7, momentum=0.9, nesterov=True), start_after=3),
    Averaged(SGD(0.1, momentum=0.9, nesterov=True), start=3),
    SGD(np.float32(0.1), clip_norm=np.float64(2)),
    AllReduce(compression=TopK(np.float64(0.25))),
    Bandwidth(np.int64(1), np.float64(1e6)),
    scaleml.Trial(LocalSGD(8), optimizer=SGD(0.2), workers=["a", "b"]),
]


@pytest.mark.parametrize("thing", THINGS, ids=repr)
def test_it_makes_the_thing_again(thing: Any) -> None:
    again = eval(repr(thing), NAMES)
    assert again == thing
    assert type(again) is type(thing)


def test_every_class_and_every_setting_is_among_them() -> None:
    assert {Serial, AllReduce, Hogwild, SGD, Averaged, TopK, Slow, Kill, MLP, LinearModel} <= set(KINDS)
    for kind in KINDS:
        plain, *others = variants(kind)
        settings = [setting.name for setting in dataclasses.fields(kind) if setting.init]
        tried = {name for other in others for name in settings if getattr(other, name) != getattr(plain, name)}
        needs_another = {
            "nesterov",
            "staleness",
            "sparse",
            "staleness_aware",
            "overlap",
            "restarts",
        }  # refused without another setting
        assert set(settings) - tried <= needs_another, kind


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        (SGD(), "SGD(learning_rate=0.01)"),
        (Adam(0.001, clip_norm=1.0), "Adam(learning_rate=0.001, clip_norm=1.0)"),
        (LinearModel(), "LinearModel('log_loss')"),
        (LinearModel("hinge", penalty=None), "LinearModel('hinge', penalty=None)"),
        (MLP(64, activation="tanh"), "MLP(hidden_layer_sizes=(64,), activation='tanh')"),
        (FP16(), "FP16()"),
        (Latency(1, 0.02, step=100), "Latency(rank=1, seconds=0.02, step=100)"),
        (Bandwidth(1, math.inf), "Bandwidth(rank=1, bytes_per_second=float('inf'))"),
        (Kill(1, 5), "Kill(rank=1, step=5)"),
        (Serial(), "Serial()"),
        (Warmup(updates=9, then=CosineAnnealing()), "Warmup(updates=9, then=CosineAnnealing())"),
        (Group("*bias", weight_decay=0), "Group('*bias', weight_decay=0.0)"),
    ],
)
def test_defaults_are_left_out_but_for_the_first_setting(thing: object, shown: str) -> None:
    assert repr(thing) == shown


@pytest.mark.parametrize(
    "estimator",
    [
        scaleml.linear_model.SGDClassifier(alpha=0.1, strategy=LocalSGD(4, outer=SGD(1.0)), workers=2),
        scaleml.linear_model.SGDRegressor(loss="huber", optimizer=Adam(0.1)),
        scaleml.neural_network.MLPClassifier((8, 4), strategy=AllReduce(compression=TopK(0.1))),
        scaleml.neural_network.MLPRegressor(alpha=0.5),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_estimators_too(estimator: Any) -> None:
    again = eval(repr(estimator), NAMES)
    assert type(again) is type(estimator)
    assert again.get_params() == estimator.get_params()
    assert "loss='squared" not in repr(estimator), "a default"


def test_a_strategy_of_ones_own_that_is_no_dataclass_has_a_repr() -> None:
    class Own(Strategy):
        def step(self, w: Any, state: Any, ctx: Any) -> None: ...

    assert "Own object at" in repr(Own())
