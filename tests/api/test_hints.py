"""What is said to who passes what another package would take."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest

import scaleml
from scaleml import optim
from scaleml.api.settings import check_kind
from scaleml.optim import Optimizer


def refused(optimizer: Any) -> str:
    with pytest.raises(TypeError, match=r"^optimizer=") as caught:
        check_kind("optimizer", optimizer)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("name", ["adam", "AdamW", "sgd", "LBFGS", "ada_grad"])
def test_an_optimizer_by_name_is_told_how_to_be_made(name: str) -> None:
    remedy = refused(name).partition("pass optimizer=scaleml.optim.")[2]
    assert isinstance(eval(remedy, vars(optim)), Optimizer)
    assert remedy.lower().startswith(name.lower().replace("_", "") + "(")


def test_what_is_no_optimizer_is_told_which_there_are() -> None:
    assert "which has SGD, AdaGrad, Adam, AdamW, Averaged, LBFGS: pass optimizer=scaleml.optim.SGD(0.1)" in refused(3)
    assert refused(optim.AdamW).endswith("AdamW is a class: call it, AdamW()")
    assert len(refused(list(range(10_000)))) < 300


def test_torchs_optimizers_are_said_not_to_be_taken() -> None:
    torch = pytest.importorskip("torch")
    weights = [torch.nn.Parameter(torch.zeros(2))]
    said = refused(torch.optim.SGD(weights, lr=0.25))
    assert "PyTorch's optimizers are not taken" in said
    assert said.endswith("pass optimizer=scaleml.optim.SGD(0.25)")
    said = refused(torch.optim.AdamW)
    assert "is a class" not in said
    assert said.endswith("pass optimizer=scaleml.optim.AdamW(0.001)")
    assert refused(torch.optim.RMSprop(weights)).endswith("pass optimizer=scaleml.optim.SGD(0.1), say")


CALLED: dict[str, Callable[..., Any]] = {
    "train": lambda **given: scaleml.train(scaleml.LinearModel(), [[0.0], [1.0]], [0, 1], **given),
    "start": lambda **given: scaleml.start(scaleml.LinearModel(), [[0.0], [1.0]], [0, 1], **given),
    "compare": lambda **given: scaleml.compare(scaleml.LinearModel(), [[0.0]], [0], [scaleml.Serial()], **given),
    "Lab": scaleml.Lab,
    "Trial": lambda **given: scaleml.Trial(scaleml.Serial(), **given),
}


@pytest.mark.parametrize("function", CALLED)
@pytest.mark.parametrize(
    ("setting", "where"),
    {
        "loss": r"belongs to the model: LinearModel\(loss=.*TorchModel\(module, loss=",
        "lr": r"belongs to the optimizer: pass optimizer=scaleml.SGD\(0.1\)",
        "learning_rate": r"pass optimizer=scaleml.SGD\(0.1\)",
        "momentum": r"SGD\(0.1, momentum=...\)",
        "transform": r"belongs to the model: TorchModel\(module, loss, transform=",
        "staleness": r"belongs to a strategy: .*ParameterServer\('ssp', staleness=2\)",
        "max_iter": "Did you mean 'epochs'",
        "n_jobs": "Did you mean 'workers'",
    }.items(),
)
def test_a_setting_of_another_place_is_told_where_it_belongs(function: str, setting: str, where: str) -> None:
    with pytest.raises(
        TypeError, match=rf"^{function}\(\) has no setting '{setting}'\. .*{where}.* Settings: .*optimizer"
    ):
        CALLED[function](**{setting: 1})


@pytest.mark.parametrize(
    ("function", "setting", "where"),
    [
        ("train", "repeats", r"belongs to scaleml.compare\("),
        ("start", "strategies", "belongs to scaleml.compare"),
        ("compare", "strategy", "Did you mean 'strategies'"),
        ("compare", "shards", "belongs to scaleml.train"),
        ("train", "random_state", "Did you mean 'seed'"),
        ("start", "metric", "Did you mean 'scoring'"),
    ],
)
def test_a_setting_of_another_function_is_told_whose_it_is(function: str, setting: str, where: str) -> None:
    with pytest.raises(TypeError, match=rf"^{function}\(\) has no setting '{setting}'\. .*{where}"):
        CALLED[function](**{setting: 1})


@pytest.mark.parametrize(("function", "named"), [(scaleml.train, 3), (scaleml.start, 3), (scaleml.compare, 4)])
def test_settings_by_position_are_told_to_be_named(function: Callable[..., Any], named: int) -> None:
    with pytest.raises(TypeError, match=rf"takes model, X, y.* by position, but {named + 1} .* give settings by name"):
        function(*[None] * (named + 1))
    assert "seed" in str(signature(function)) or function is scaleml.train
