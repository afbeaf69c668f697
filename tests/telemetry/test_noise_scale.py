"""The gradient noise scale from a history: right on gradients of a known distribution, as sure of it as it may be, and put in words."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from scaleml.telemetry import COLUMNS, History
from scaleml.telemetry.noise_scale import NoiseScale, noise_curve, noise_reason, noise_scale, noise_sentence
from scaleml.telemetry.report import run_fragment, run_text
from telemetry_fakes import FakeRun, row

DIMENSIONS = 40
AT = {name: i for i, name in enumerate(COLUMNS)}


def simulated(random, norms, batch=64, ranks=2, trace=100.0, every=10, biased=False):
    """The rows of a run of steps that measure gradients of squared norm `norms`, with Gaussian noise of unequal variances."""
    variances = np.linspace(0.2, 1.8, DIMENSIONS) * trace / DIMENSIONS
    table = np.zeros((len(norms) * ranks, len(COLUMNS)))
    sizes = np.full(ranks, batch / ranks) + np.arange(ranks) - (ranks - 1) / 2  # unequal parts
    for step, norm in enumerate(norms):
        true = np.full(DIMENSIONS, np.sqrt(norm / DIMENSIONS))
        parts = true + random.normal(size=(ranks, DIMENSIONS)) * np.sqrt(variances / sizes[:, None])
        mean = sizes @ parts / batch
        for rank, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            noise, weight = size * (part @ part - mean @ mean), 1 - size / batch
            values = {
                "rank": rank, "step": every * (step + 1), "time": step + rank / 100, "samples": every * (step + 1) * batch / ranks,
                "epoch": step / len(norms), "updates": every, "noise": noise, "signal": weight * (mean @ mean) - noise / batch,
                "noise_weight": weight, "biased": float(biased),
            }  # fmt: skip
            table[step * ranks + rank, [AT[name] for name in values]] = list(values.values())
    return table


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_the_estimates_of_trace_and_norm_have_no_bias(ranks):
    random = np.random.default_rng(ranks)
    table = simulated(random, np.full(4_000, 0.5), ranks=ranks)
    weight = table[:, AT["noise_weight"]].sum()
    by_step = table[:, [AT["noise"], AT["signal"]]].reshape(4_000, ranks, 2).sum(axis=1)
    error = by_step.std(axis=0) / np.sqrt(4_000) / (weight / 4_000)
    assert weight == pytest.approx(4_000 * (ranks - 1)), "degrees of freedom"
    assert np.abs(by_step.sum(axis=0) / weight - [100.0, 0.5]) == pytest.approx([0, 0], abs=float(3 * error.max()))
    assert (error < [1.0, 0.05]).all(), "an estimate that scatters so would never be wrong"


@pytest.mark.parametrize("norm", [4.0, 0.5])
def test_the_interval_has_the_truth_in_it_as_often_as_it_says(norm):
    """Also where the noise scale, 200 rows, is three times the batch."""
    random = np.random.default_rng(7)
    scales = [noise_scale(simulated(random, np.full(150, norm))) for _ in range(300)]
    covered = np.mean([scale.low <= 100 / norm <= scale.high for scale in scales])
    assert 0.92 <= covered <= 0.99
    assert np.median([scale.rows for scale in scales]) == pytest.approx(100 / norm, rel=0.06)
    assert np.mean([scale.high < 3 * scale.low for scale in scales]) > 0.5, (
        "an interval that is too wide covers anything"
    )


def test_without_a_gradient_there_is_no_upper_end():
    random = np.random.default_rng(1)
    scales = [noise_scale(simulated(random, np.zeros(100))) for _ in range(100)]
    assert np.mean([scale.high == np.inf for scale in scales]) >= 0.93
    assert all("at least" in str(scale) or "cannot" in str(scale) for scale in scales if scale.high == np.inf)
    assert np.median([scale.low for scale in scales]) > 100, "the batch is 64: the noise scale is surely larger"


def test_a_scale_that_grows_is_followed():
    """The squared norm falls by 100 as training goes on: an average over all of it would be that of the start."""
    norms = 3.0 * (1 + np.arange(600) / 30) ** -1.5
    rows = simulated(np.random.default_rng(3), norms, batch=512)
    scale = noise_scale(rows)
    assert scale.low <= 100 / norms[-1] <= 1.5 * scale.high
    assert 100 / norms[-1] > 5 * 100 / norms.mean()
    curve = noise_curve(rows, 20)
    truth = np.interp(curve.samples, np.arange(1, 601) * 5120, 100 / norms)
    known = np.isfinite(curve.rows)
    assert known.sum() >= 12
    assert (np.abs(np.log(curve.rows[known] / truth[known])) < np.log(2)).all()


def test_batches_that_come_again_are_no_more_evidence():
    once = simulated(np.random.default_rng(5), np.full(40, 1.0))
    once[:, AT["epoch"]] = np.repeat(np.arange(1, 41) / 40, 2)
    once[:, AT["step"]] = np.repeat(np.arange(1, 41), 2)
    again = np.concatenate([once] * 100)
    lap = np.repeat(np.arange(100), len(once))
    again[:, AT["time"]] += 40 * lap
    again[:, AT["epoch"]] += lap
    again[:, AT["step"]] += 40 * lap
    again[:, AT["samples"]] += once[:, AT["samples"]].max() * lap
    honest = noise_scale(again)
    again[:, AT["epoch"]] /= 1000  # as if all batches were different ones
    naive = noise_scale(again)
    assert honest.rows == pytest.approx(naive.rows, rel=0.3)
    assert honest.high - honest.low > 1.8 * (naive.high - naive.low)


def test_nothing_measured_is_said():
    history = History()
    assert np.isnan(history.noise_scale.rows)
    history.append_rows([row(0, step=5, time=1, samples=100)])
    assert "not measured" in str(history.noise_scale)
    assert len(noise_curve(history.rows).rows) == 0
    history.append_rows(simulated(np.random.default_rng(0), np.ones(3)))
    assert "cannot be told from so few steps" in str(history.noise_scale)


def test_values_that_are_not_finite_are_left_out():
    rows = simulated(np.random.default_rng(2), np.full(100, 1.0))
    spoilt = np.concatenate([rows, rows[-2:]])
    spoilt[-1, AT["noise"]] = np.nan
    spoilt[-2, AT["signal"]] = np.inf
    assert noise_scale(spoilt).rows == noise_scale(rows).rows


def test_thinned_and_pickled_it_stays():
    rows = simulated(np.random.default_rng(4), np.full(2_000, 1.0))
    whole, thin = History(), History(max_rows=512)
    for part in np.array_split(rows, 50):
        whole.append_rows(part)
        thin.append_rows(part)
    assert len(thin) < len(whole) / 4
    for name in ("noise", "signal", "noise_weight", "biased"):
        assert thin[name].sum() == pytest.approx(whole[name].sum())
    assert thin.noise_scale.rows == pytest.approx(whole.noise_scale.rows, rel=0.1)
    assert pickle.loads(pickle.dumps(whole)).noise_scale == whole.noise_scale
    frame = whole.to_frame()
    assert frame["noise"].sum() / frame["noise_weight"].sum() == pytest.approx(100, rel=0.05)


def test_kinds_are_not_mixed_and_the_newest_counts():
    """A run that goes over from local steps to common ones: what was biased is no part of the estimate."""
    random = np.random.default_rng(6)
    local, common = simulated(random, np.full(100, 0.1), biased=True), simulated(random, np.full(100, 1.0))
    common[:, AT["time"]] += 100
    common[:, AT["samples"]] += local[:, AT["samples"]].max()
    rows = np.concatenate([local, common])
    scale, curve = noise_scale(rows), noise_curve(rows)
    assert not scale.biased
    assert scale.low < 100 < scale.high
    assert curve.biased[0]
    assert not curve.biased[-1]
    assert noise_scale(local).biased
    assert "biased" in str(noise_scale(local))


def test_it_is_in_what_a_run_shows():
    run = FakeRun(label="AllReduce()", workers=2)
    run.history.append_rows(simulated(np.random.default_rng(8), np.full(200, 1.0)))
    said = noise_sentence(run.history.noise_scale)
    assert said.startswith("The gradient noise scale is about ")
    assert said in run_text(run)
    assert said in run_fragment(run)


def test_reasons_for_a_verdict():
    known = NoiseScale(rows=873.0, low=620.0, high=1380.0)
    assert noise_reason(known).startswith("A batch above about 870 rows")
    assert noise_reason(known, 1000).startswith("A batch above about 870 rows")
    assert noise_reason(known, 2048).startswith("The batch of 2,048 rows is above")
    assert "biased" in noise_reason(NoiseScale(rows=873.0, low=620.0, high=1380.0, biased=True))
    at_least = NoiseScale(rows=np.inf, low=3_200.0)
    assert "at least about 3,200 rows" in noise_reason(at_least, 256)
    assert noise_reason(at_least, 5_000) == noise_reason(NoiseScale(), 10) == ""
    assert noise_reason(NoiseScale(rows=10.0, low=0.0, high=1e6)) == ""
