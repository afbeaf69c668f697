"""Overfitting: found where a held-out loss rises, and not where it only varies."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kendalltau

from scaleml.telemetry import History
from scaleml.telemetry.headline import standing
from scaleml.telemetry.held_out import held_out_sentences, score_sentence
from scaleml.telemetry.overfitting import CHANCE, Overfitting, chance_of_trend, find_overfitting, rise_of
from telemetry_fakes import FakeRun, row

RANDOM = np.random.default_rng(0)


def u_shaped(noise: float, evaluations: int = 21, depth: float = 0.4, rise: float = 0.2) -> np.ndarray:
    """Return a loss that falls by ``depth`` in a third of the run and rises by ``rise`` in the rest."""
    at = np.linspace(0, 1, evaluations)
    exact = 1 - depth * np.minimum(at / 0.33, 1) + rise * np.maximum(0, (at - 0.33) / 0.67)
    return exact + noise * RANDOM.standard_normal(evaluations)


def falling(noise: float, evaluations: int = 21) -> np.ndarray:
    """Return a loss that falls and stays there."""
    return 0.3 + 0.7 * np.exp(-8 * np.linspace(0, 1, evaluations)) + noise * RANDOM.standard_normal(evaluations)


@pytest.mark.parametrize("n", [2, 4, 6, 7])
def test_the_chance_is_that_of_all_orders(n: int) -> None:
    values = RANDOM.permutation(n).astype(float)
    rising = lambda order: sum(np.sign(order[j] - order[i]) for i in range(n) for j in range(i + 1, n))  # noqa: E731
    found = [rising(order) >= rising(values) for order in permutations(range(n))]
    assert chance_of_trend(values) == pytest.approx(np.mean(found))


@pytest.mark.parametrize("n", [20, 40, 41, 120])
def test_the_chance_is_scipys(n: int) -> None:
    values = 0.05 * np.arange(n) + RANDOM.standard_normal(n)
    method = "exact" if n <= 40 else "asymptotic"
    expected = kendalltau(np.arange(n), values, alternative="greater", method=method).pvalue
    assert chance_of_trend(values) == pytest.approx(expected, rel=0.05)


def test_what_only_varies_is_rarely_called_rising() -> None:
    runs = 1500
    for made in (lambda: falling(0.02), lambda: RANDOM.standard_normal(12), lambda: falling(0.2, 60)):
        claims = sum(rise_of(made()) is not None for _ in range(runs))
        assert claims / runs < CHANCE + 3 * math.sqrt(CHANCE / runs)


def test_a_rise_is_found_at_its_beginning() -> None:
    found = [rise_of(u_shaped(0.03)) for _ in range(300)]
    assert sum(one is not None for one in found) > 270
    assert np.median([one for one in found if one is not None]) == pytest.approx(7, abs=1)


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [0.7],
        [0.7, 0.6, 0.5, 0.4, 0.3],
        [0.7, 0.3, 0.31, 0.32, 0.33],  # four later ones: one order of 24
        [0.7, 0.3, 0.301, 0.302, 0.303, 0.304, 0.305, 0.306],  # gives back a hundredth
        [0.7, 0.2, 0.5, 0.48, 0.46, 0.44, 0.42, 0.40],  # a lucky dip on the way down
        [0.7, 0.3, 0.4, 0.5, 0.6, math.nan, math.nan],
        [math.nan] * 9,
    ],
)
def test_what_is_no_rise(losses: list[float]) -> None:
    assert rise_of(losses) is None


def test_what_only_ever_rises_does_so_from_the_start() -> None:
    assert rise_of([0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0]) == 0


def run_with(held_out: list[float], training: list[float]) -> FakeRun:
    """Return a run of one epoch an evaluation."""
    run = FakeRun(history=History(), baseline_score=0.6)
    run.history.append_rows(
        [row(step=i, epoch=i, time=float(i), samples=100 * i, loss=loss) for i, loss in enumerate(training, 1)]
    )
    for i, loss in enumerate(held_out):
        run.history.add_evaluation(float(i), 100.0 * i, i, loss, 1 - loss)
    return run


RISING = [0.7, 0.5, 0.3, 0.35, 0.4, 0.42, 0.47, 0.5, 0.55]


def test_a_rise_from_the_first_step_on_says_so() -> None:
    assert str(Overfitting(0, 0.0, 0.7, 2.0)) == "The held-out loss rises from the first step on: 0.7 then, 2 now"


def test_it_says_since_when_and_whether_training_goes_on() -> None:
    by_heart = find_overfitting(run_with(RISING, list(np.linspace(0.6, 0.1, 8))).history)
    assert by_heart == Overfitting(2, 2.0, 0.3, 0.55, training_falls=True)
    assert str(by_heart) == (
        "The held-out loss rises since epoch 2: 0.3 then, 0.55 now, while the training loss falls: the model learns its rows by heart"
    )
    wrong = find_overfitting(run_with(RISING, list(np.linspace(0.1, 0.6, 8))).history)
    assert wrong is not None
    assert str(wrong).endswith("and the training loss does not fall either")


def test_the_summary_of_a_run_says_it() -> None:
    run = run_with(RISING, list(np.linspace(0.6, 0.1, 8)))
    from scaleml.telemetry.report import run_fragment, run_text

    for said in (run_text(run), run_fragment(run)):
        assert "The held-out loss rises since epoch 2" in said
        assert (
            "Held-out accuracy 0.45 at the end, no better than always saying the largest class, which scores 0.6."
            in said
        )
        assert "by heart; run.model is the model of then, with accuracy 0.7." in said


def test_a_dip_that_is_no_rise_is_where_the_best_model_is() -> None:
    said = held_out_sentences(run_with([0.7, 0.3, 0.31, 0.305], [0.5, 0.4, 0.3]))
    assert said[0].startswith("Held-out accuracy 0.695 at the end")
    assert (
        said[1]
        == "The lowest held-out loss was 0.3, at evaluation 1 of 3: run.model is the model of then, with accuracy 0.7."
    )
    assert len(held_out_sentences(run_with([0.7, 0.3], [0.5]))) == 1
    assert held_out_sentences(FakeRun()) == []


def test_the_line_of_a_run_says_what_is_the_last_and_what_the_best() -> None:
    run = run_with([0.7, 0.3, 0.31, 0.305], [0.5, 0.4, 0.3])
    last = "held-out loss 0.305, accuracy 0.695"
    assert standing(run) == f"finished, at the end {last}; run.model is of its best, 0.3, with accuracy 0.7"
    assert standing(replace(run, state="running")) == f"running, now {last}; the best so far is 0.3, with accuracy 0.7"
    assert standing(run_with([0.7, 0.3], [0.5])) == "finished, held-out loss 0.3, accuracy 0.7"


def test_a_score_without_a_baseline_stands_alone() -> None:
    assert score_sentence("roc_auc", 0.91, None) == "Held-out roc_auc 0.91."
    assert score_sentence("roc_auc", math.nan, 0.5) == ""
