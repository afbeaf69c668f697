"""A run that diverges names the columns that make it: in its error, its summary and its cell; scaled, the same run learns."""

from __future__ import annotations

from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client

import scaleml
from scaleml import SGD, LinearModel
from scaleml.cluster.errors import RunFailed
from scaleml.neural_network import MLPRegressor

_random = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "age": _random.normal(size=800),
        "income": _random.lognormal(10.5, 0.5, 800),
        "member": _random.integers(0, 2, 800).astype("f8"),
    }
)
Y = pd.Series((TABLE["age"] + np.log(TABLE["income"]) > 10.5).astype(int), name="y")
WORDS = "column 'income' (values of about"
SETTINGS: dict[str, Any] = {"epochs": 3, "validation": 0.2, "optimizer": SGD(0.1), "batch_size": 64}


def data(storage: str) -> tuple[Any, Any]:
    if storage == "pandas":
        return TABLE, Y
    table = dd.from_pandas(TABLE.assign(y=Y), npartitions=3)
    return table.drop(columns="y"), table["y"]


@pytest.mark.parametrize("storage", ["pandas", "dask"])
def test_a_finished_run_says_it_in_its_summary_and_its_cell(storage: str, threads: Client) -> None:
    run = scaleml.train(LinearModel(), *data(storage), client=threads, **SETTINGS)
    assert run.history.evaluations["loss"][-1] > 100 * run.history.evaluations["loss"][0]
    assert run.advice is not None
    assert run.advice.startswith(WORDS)
    assert "is far larger than the others (about 0.8" in run.advice
    assert run.summary().endswith(f"The run diverged, most likely by its data: {run.advice}.")
    assert "StandardScaler" in run._repr_mimebundle_()["text/html"]


def test_a_failed_run_says_it_in_its_error(threads: Client) -> None:
    with pytest.raises(
        RunFailed, match=r"the loss is (inf|nan).*Look at X first: column 'income' \(values of about"
    ) as caught:
        scaleml.train(LinearModel("squared_error"), TABLE, Y, client=threads, **SETTINGS | {"epochs": 200})
    assert "the learning rate by 10" in str(caught.value)


def test_an_estimator_says_it_in_this_process() -> None:
    with pytest.raises(ValueError, match=r"diverged at step .*Look at X first: column 'income'"):
        MLPRegressor(
            hidden_layer_sizes=(), activation="identity", solver="sgd", learning_rate_init=0.5, momentum=0, max_iter=900
        ).fit(TABLE, Y)


def test_scaled_columns_learn_and_nothing_is_said(threads: Client) -> None:
    run = scaleml.train(LinearModel(), (TABLE - TABLE.mean()) / TABLE.std(), Y, client=threads, **SETTINGS)
    assert run.advice is None
    assert "diverged" not in run.summary()
    assert run.history.evaluations["score"][-1] > 0.85


def test_a_rate_that_is_too_large_for_scaled_columns_blames_none(threads: Client) -> None:
    scaled = (TABLE - TABLE.mean()) / TABLE.std()
    with pytest.raises(RunFailed, match="the learning rate by 10") as caught:
        scaleml.train(
            LinearModel("squared_error"), scaled, Y, client=threads, **SETTINGS | {"optimizer": SGD(1e6), "epochs": 50}
        )
    assert "Look at X first" not in str(caught.value)


def test_a_run_shows_strategy_loss_and_score(threads: Client) -> None:
    run = scaleml.train(LinearModel(), (TABLE - TABLE.mean()) / TABLE.std(), Y, client=threads, **SETTINGS)
    last = {name: float(values[-1]) for name, values in run.history.evaluations.items()}
    bundle = run._repr_mimebundle_()
    for text in (repr(run), bundle["text/html"], bundle["text/plain"]):
        assert "AllReduce()" in text
        assert f"held-out loss {last['loss']:.4g}" in text
        assert f"accuracy {last['score']:.4g}" in text


@pytest.mark.parametrize("validation", [None, 0.2])
def test_too_large_a_rate_is_said_to_have_made_it_diverge(validation: float | None, threads: Client) -> None:
    X = _random.normal(size=(200, 3))
    y = (X[:, 0] + _random.normal(size=200) > 0).astype(int)
    settings: Any = SETTINGS | {"validation": validation}
    run = scaleml.train(LinearModel(), X, y, client=threads, **settings | {"optimizer": SGD(1e6)})
    assert run.advice is None
    assert ": finished, but diverged, " in repr(run)
    kind = "training" if validation is None else "held-out"
    assert f"The run diverged: its {kind} loss was 0.6931 at first and ended at " in run.summary()
    assert "try a smaller learning rate" in run._repr_mimebundle_()["text/html"]
    tame = scaleml.train(LinearModel(), X, y, client=threads, **settings)
    assert "diverged" not in tame.summary() + repr(tame)
