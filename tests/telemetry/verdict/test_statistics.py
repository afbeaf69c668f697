"""The statistics alone: coverage and power by simulation, exact tests against SciPy's, and every odd case."""

import math

import numpy as np
import pytest
from scipy import stats

from scaleml.telemetry.verdict.statistics import (
    ALPHA,
    CLAIM,
    MEANINGFUL,
    Interval,
    PairedRatio,
    holm,
    sign_test,
    student,
)

NOISES = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "heavy tails": lambda random, shape: random.standard_t(3, shape),
    "bursts": lambda random, shape: random.standard_normal(shape) + 5 * (random.random(shape) < 0.1),
}


def times(random, noise, shape, spread=0.1):
    return np.exp(spread * NOISES[noise](random, shape))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("rounds", [5, 10])
def test_intervals_hold_the_true_ratio_as_often_as_they_say(noise, rounds):
    """95% +- 2 for normal noise; for the others never less than 93%: what a claim may be wrong by is what counts."""
    random = np.random.default_rng(rounds)
    slow, fast = 1.4 * times(random, noise, (4000, rounds)), times(random, noise, (4000, rounds))
    held = np.mean(
        [
            low <= 1.4 <= high
            for _, low, high in (PairedRatio.of(a, b).interval() for a, b in zip(slow, fast, strict=True))
        ]
    )
    assert held >= 0.93
    assert held <= (0.97 if noise == "normal" else 0.995)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("contenders", [2, 3, 6])
def test_equals_are_rarely_told_apart(noise, contenders):
    """Of 1,000 comparisons of a strategy with itself at most 2% claim anything at all, however many there are to choose from."""
    random = np.random.default_rng(contenders)
    wrong = 0
    for _ in range(1000):
        rows = times(random, noise, (contenders, 6))
        pairs = [PairedRatio.of(rows[a], rows[b]) for a in range(contenders) for b in range(a)]
        levels = holm([pair.p_value for pair in pairs], CLAIM)
        wrong += any(pair.p_value <= level for pair, level in zip(pairs, levels, strict=True))
    assert wrong <= 29  # 2% and two standard errors


def test_a_factor_of_1_3_is_found():
    """At 10% noise in nine of ten comparisons of 10 rounds, of four that scale and a baseline with two forms."""
    random = np.random.default_rng(0)
    found = 0
    for _ in range(500):
        rows = times(random, "normal", (6, 10)) * np.array([1.3, 1.4, 1.0, 1.3, 1.35, 1.5])[:, None]
        pairs = [(a, b, PairedRatio.of(rows[a], rows[b])) for a in range(2) for b in range(2, 6)]
        levels = holm([pair.p_value for *_, pair in pairs], CLAIM)
        found += any(
            (a, b) == (0, 2) and pair.p_value <= level and pair.ratio > MEANINGFUL
            for (a, b, pair), level in zip(pairs, levels, strict=True)
        )
    assert found >= 450


def test_student_is_that_of_scipy():
    random = np.random.default_rng(1)
    slow, fast = times(random, "normal", 7), times(random, "normal", 7)
    pair = PairedRatio.of(slow, fast)
    assert pair.p_value == pytest.approx(stats.ttest_rel(np.log(slow), np.log(fast)).pvalue)
    known = stats.ttest_rel(np.log(slow), np.log(fast)).confidence_interval(0.9)
    assert pair.interval(0.1)[1:] == pytest.approx((math.exp(known.low), math.exp(known.high)))
    assert student(0.05, 10) == pytest.approx(stats.t.ppf(0.975, 9))


@pytest.mark.parametrize(("more", "fewer"), [(5, 0), (6, 0), (7, 2), (3, 3), (1, 0), (0, 0)])
def test_signs_are_those_of_the_binomial_test(more, fewer):
    known = 1.0 if more + fewer == 0 else stats.binomtest(more, more + fewer).pvalue
    assert sign_test(more, fewer) == pytest.approx(known)


@pytest.mark.parametrize("p_values", [[0.01, 0.04, 0.03, 0.005], [0.2], [0.01, 0.01], [0.5, 0.04, 0.049]])
def test_holm_claims_what_the_adjusted_p_values_do(p_values):
    """Against the definition: p_(i) (m - i), its running maximum, at most alpha."""
    order = np.argsort(p_values)
    adjusted = np.maximum.accumulate(np.sort(p_values) * np.arange(len(p_values), 0, -1))
    claimed = {int(i) for i, value in zip(order, adjusted, strict=True) if value <= ALPHA}
    assert {i for i, level in enumerate(holm(p_values, ALPHA)) if p_values[i] <= level} == claimed


@pytest.mark.parametrize("level", [0.05, 0.01, 0.3])
def test_an_interval_excludes_one_exactly_where_the_test_rejects(level):
    random = np.random.default_rng(3)
    for _ in range(300):
        pair = PairedRatio.of(1.1 * times(random, "normal", 5), times(random, "normal", 5))
        assert pair.interval(level).excludes_one == (pair.p_value < level)


def test_a_miss_counts_as_infinite_and_only_signs_decide():
    five = PairedRatio.of([math.inf] * 5, [1.0] * 5)
    assert five.is_exact
    assert five.p_value == 0.0625  # five rounds cannot reach 5% by signs alone
    assert five.interval() == Interval(math.inf, 0.0, math.inf)
    assert five.more_rounds() == 1
    six = PairedRatio.of([math.inf] * 6, [1.0] * 6)
    assert six.p_value == 0.03125
    assert six.interval().low == math.inf
    mixed = PairedRatio.of([math.inf, 2.0, 2.0, 2.0, 2.0, 2.0], [1.0] * 6)
    assert mixed.ratio == pytest.approx(2.0)
    assert mixed.interval().low == pytest.approx(2.0)


def test_rounds_in_which_nobody_arrives_say_nothing():
    pair = PairedRatio.of([math.inf, 2.0, math.inf], [math.inf, 1.0, math.inf])
    assert (pair.rounds, pair.ties) == (1, 2)


def test_rounds_that_one_of_them_lacks_are_left_out():
    whole = PairedRatio.of([2.0, 2.2, 1.9], [1.0, 1.0, 1.1])
    ragged = PairedRatio.of([2.0, 2.2, 1.9, 5.0, math.nan], [1.0, 1.0, 1.1, math.nan, 3.0])
    assert ragged.interval() == whole.interval()


def test_one_round_claims_nothing_and_none_even_less():
    one = PairedRatio.of([8.0], [1.0])
    assert (one.p_value, one.interval()) == (1.0, Interval(pytest.approx(8.0), 0.0, math.inf))
    none = PairedRatio.of([], [])
    assert none.p_value == 1.0
    assert math.isnan(none.ratio)
    assert one.more_rounds() is None


def test_exactly_equal_rounds():
    assert PairedRatio.of([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).p_value == 1.0
    assert PairedRatio.of([0.0, 0.0], [0.0, 0.0]).ratio == 1.0
    assert PairedRatio.of([2.0, 4.0], [1.0, 2.0]).interval() == pytest.approx((2.0, 2.0, 2.0))


def test_both_sides_of_a_ratio_agree():
    random = np.random.default_rng(5)
    a, b = 1.2 * times(random, "normal", 8), times(random, "normal", 8)
    assert PairedRatio.of(b, a).interval() == pytest.approx(PairedRatio.of(a, b).interval().inverse())


def test_rounds_that_are_foreseen_settle_it():
    """Four in five comparisons of as many rounds as were foreseen tell the two apart."""
    random = np.random.default_rng(6)
    slow, fast = 1.2 * times(random, "normal", 5, 0.2), times(random, "normal", 5, 0.2)
    slow, fast = slow / np.exp(np.mean(np.log(slow)) - np.log(1.2)), fast / np.exp(np.mean(np.log(fast)))
    pair = PairedRatio.of(slow, fast)
    more = pair.more_rounds()
    assert more is not None
    spread = pair.logs.std(ddof=1)
    found = 0
    for _ in range(400):
        logs = math.log(1.2) + spread * random.standard_normal(5 + more)
        found += PairedRatio(logs).interval().excludes_one
    assert 0.7 <= found / 400 <= 0.92


def test_no_rounds_are_foreseen_for_a_difference_not_worth_a_word():
    assert PairedRatio(np.array([0.03, -0.01, 0.02, 0.0])).more_rounds() is None
