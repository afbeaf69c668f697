"""What the controls of the settings say, without a page or a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from scaleml.lab.setup import Setup
from scaleml.optim import LBFGS, SGD, Adam, AdamW, Averaged, CosineAnnealing, Optimizer, StepDecay, Warmup

COMMON = {"workers": 2, "batch_size": 32, "epochs": 3, "target": None, "repeats": None, "tune": None, "budget": None}


def setup(optimizer: Optimizer | None) -> Setup:
    return Setup(None, None, None, None, {**COMMON, "optimizer": optimizer}, {})


def choose(menu: Any, name: str) -> None:
    menu.value = dict(menu.options)[name] if isinstance(menu.options[0], tuple) else name


@pytest.mark.parametrize(
    "given",
    [SGD(0.1), AdamW(0.1, schedule=CosineAnnealing(), no_decay="1d"), SGD(schedule=StepDecay()), LBFGS()],
    ids=repr,
)
def test_the_users_optimizer_stays_as_it_is(given: Optimizer) -> None:
    assert setup(given).wish().settings["optimizer"] == given


def test_a_schedule_is_put_into_any_optimizer_that_has_one() -> None:
    controls = setup(Averaged(SGD(0.3)))
    choose(controls.schedule, "warm-up, cosine")
    schedule = Warmup(then=CosineAnnealing())
    assert controls.wish().settings["optimizer"] == Averaged(SGD(0.3, schedule=schedule))
    assert "warm-up, cosine" in controls.summary.value
    choose(controls.optimizer, "AdamW")
    assert controls.wish().settings["optimizer"] == AdamW(0.3, schedule=schedule)
    choose(controls.optimizer, "LBFGS")
    assert controls.wish().settings["optimizer"] == LBFGS(0.3)


def test_hidden_layers_are_asked_for_an_mlp_alone() -> None:
    controls = setup(SGD(0.1))
    (box,) = [box for box in controls.box.children[0].children if controls.hidden in box.children]
    assert box.layout.display is None
    controls.hidden.value = "many"
    assert "hidden layers" in controls.problem
    controls.model.value = "linear model"
    assert (box.layout.display, controls.problem) == ("none", "")
    controls.model.value = "MLP"
    assert box.layout.display is None


def test_sentences_start_with_adam_where_nobody_chose_an_optimizer() -> None:
    pytest.importorskip("torch")
    for untouched in (True, False):
        controls = setup(None)
        if not untouched:
            controls.rate.value = "0.2"
        controls.data.value = "docstrings"
        assert controls.wish().settings["optimizer"] == (Adam(0.003) if untouched else SGD(0.2))
        controls.data.value = "wine"
        assert controls.wish().settings["optimizer"] == (SGD(0.1) if untouched else SGD(0.2))
    for optimizer in (SGD(0.3), SGD(0.1)):  # also the one that it would have begun with
        given = setup(optimizer)
        given.data.value = "docstrings"
        assert given.wish().settings["optimizer"] == optimizer


def test_what_is_no_optimizer_is_told_so() -> None:
    with pytest.raises(TypeError, match=r"optimizer='adam': must be one of scaleml\.optim"):
        setup("adam")  # type: ignore[arg-type]
