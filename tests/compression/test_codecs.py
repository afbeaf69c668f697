"""Every codec against its paper's bound, and what all codecs promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.testing import assert_allclose, assert_array_equal

import fake_cupy
from scaleml.comm.transport.frame import CODECS as NAMES
from scaleml.compression import FP16, Codec, CodecContext, Int8, OneBit, PowerSGD, RandomK, TopK
from scaleml.compression.error_feedback import forget
from scaleml.compression.top_k import _largest
from scaleml.strategies import AllReduce

CODECS = [FP16(), Int8(), OneBit(), TopK(0.01), TopK(0.3), RandomK(0.01), RandomK(1.0), PowerSGD(1), PowerSGD(3)]
DTYPES = ("float32", "float64")


def stamp_for(n, **settings):
    """Say that the vector begins with a matrix of 7 columns."""
    return CodecContext(matrices=((0, n // 7, 7),) if n >= 7 else (), **settings)


def decoded(codec, payload, like, context):
    out = np.full_like(like, np.nan)
    codec.decode(payload, out, context)
    return out


def through(codec, x, context):
    """Return what is left of `x` on the other side."""
    return decoded(codec, codec.encode(x, context), x, context)


def normal(n, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(n).astype(dtype)


def squares(x):
    return float(np.sum(np.square(x, dtype=np.float64)))


# --- what all promise -------------------------------------------------------------------------------------------------


def vectors(dtype):
    bits = int(dtype[-2:])
    largest = 2.0**60 if bits == 32 else 2.0**500  # products of larger ones need not be finite
    items = st.floats(-largest, largest, width=bits, allow_subnormal=True)
    return st_numpy.arrays(dtype, st.integers(0, 3000), elements=items)


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_vector_comes_back_less_what_was_lost(codec, data):
    x = data.draw(vectors(data.draw(st.sampled_from(DTYPES))))
    context = stamp_for(len(x), seed=3, step=5, rank=1)
    kept, lost = x.copy(), np.full_like(x, np.nan)
    payload = codec.encode(x, context, lost)
    assert_array_equal(x, kept, "the vector itself was changed")
    assert payload.dtype == np.uint8
    assert payload.shape == (codec.nbytes(len(x), x.dtype, context),)
    out = decoded(codec, payload, x, context)
    assert np.isfinite(out).all()
    tiny = 4 * np.finfo(x.dtype).eps * (np.abs(x).max() if len(x) else 0)
    assert_allclose(lost, x - out, rtol=0, atol=tiny)
    in_place = x.copy()
    assert_array_equal(codec.encode(in_place, context, in_place), payload, "the same context, the same bytes")
    assert_array_equal(in_place, lost)


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, -0.0, 5e-324, 1e-45, 1e-30, -2.5])
def test_constant_vectors(codec, dtype, value):
    x = np.full(1500, value, dtype)
    out = through(codec, x, stamp_for(1500))
    assert np.isfinite(out).all()
    assert (np.abs(out) <= 1.02 * np.abs(x) + 1e-37).all()


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_by_its_place(codec, bad):
    x = normal(3000)
    x[1234] = bad
    with pytest.raises(ValueError, match=rf"rank 2, step 7: item 1234 of the gradient is {bad}.*learning rate"):
        codec.encode(x, stamp_for(3000, rank=2, step=7))


def test_finite_numbers_with_infinite_squares_are_not_refused():
    x = np.full(100, 1e30, "float32")
    assert_allclose(through(FP16(), x, CodecContext()), x, rtol=1e-3)


def test_codes_are_those_that_errors_name():
    for codec in CODECS:
        assert NAMES[codec.code] == type(codec).__name__
    assert len(NAMES) == 1 + len({codec.code for codec in CODECS})


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_settings_are_immutable_values_that_their_repr_recreates(codec):
    assert eval(repr(codec)) == codec
    assert hash(codec) == hash(eval(repr(codec)))
    with pytest.raises(AttributeError):
        codec.ratio = 3  # type: ignore[misc]


@pytest.mark.parametrize("make", [TopK, RandomK])
@pytest.mark.parametrize("ratio", [0, -0.1, 1.01, math.nan, "0.1", None, True])
def test_a_ratio_is_a_share(make, ratio):
    with pytest.raises(ValueError, match=r"ratio=.*above 0 and at most 1.*0\.01 sends one in a hundred"):
        make(ratio)


@pytest.mark.parametrize("rank", [0, -1, 1.5, True])
def test_a_rank_is_a_positive_integer(rank):
    with pytest.raises(ValueError, match=rf"rank={rank}: must be a positive integer.*1 to 4 are usual"):
        PowerSGD(rank)


@pytest.mark.parametrize("codec", ["int8", Int8, 8])
def test_a_strategy_takes_codecs_alone(codec):
    with pytest.raises(ValueError, match=r"compression=.*None or a codec of scaleml.compression, with its brackets"):
        AllReduce(compression=codec)


# --- the papers' bounds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_half_precision_loses_one_part_in_two_thousand(dtype):
    x = normal(10_000, dtype) * 10.0 ** np.random.default_rng(1).integers(-20, 20)
    error = np.abs(through(FP16(), x, CodecContext()) - x)
    assert (error <= 2.0**-11 * np.abs(x) + 2.0**-39 * np.abs(x).max()).all()
    assert error.max() > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_int8_is_unbiased_with_the_variance_of_its_levels(dtype):
    x = normal(1100, dtype)
    x[512:1024] *= 100  # a scale of its own
    draws = np.array([through(Int8(), x, CodecContext(seed=4, step=step)) for step in range(2000)], np.float64)
    scale = np.repeat([np.abs(x[a:b]).max() / 126.99 for a, b in ((0, 512), (512, 1024), (1024, 1100))], 512)[:1100]
    assert (np.abs(draws - x) <= 1.001 * scale).all()
    # Each item is one of two neighbouring levels: the mean of 2000 draws is normal, with at most this deviation.
    assert np.abs((draws.mean(axis=0) - x) / scale).max() < 5 * 0.5 / math.sqrt(2000) + 1e-3
    assert np.mean((draws.mean(axis=0) - x) / scale) == pytest.approx(0, abs=2e-3)
    variance = np.mean([squares(draw - x) for draw in draws])
    assert variance <= squares(scale) / 4 * 1.01
    # QSGD, lemma 3.1, for buckets of d = 512 and s = 127 levels; scaling by the largest item only makes it smaller.
    assert variance <= min(512 / 127**2, math.sqrt(512) / 127) * squares(x)
    assert variance > 0.3 * squares(scale) / 4, "the rounding is not random"


def test_int8_rounds_alike_only_for_the_same_seed_step_rank_and_part():
    x = normal(1000)
    payloads = {Int8().encode(x, CodecContext(*numbers)).tobytes() for numbers in np.ndindex(2, 2, 2, 2)}
    assert len(payloads) == 16


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [0.0, 0.5, 4.0])
def test_one_bit_is_the_scaled_sign_or_better(dtype, shift):
    x = normal(2500, dtype) + np.asarray(shift, dtype)
    out = through(OneBit(), x, CodecContext())
    for a, b in ((0, 1024), (1024, 2048), (2048, 2500)):
        bound = squares(x[a:b]) - np.abs(x[a:b], dtype="f8").sum() ** 2 / (b - a)
        assert squares(out[a:b] - x[a:b]) <= bound * (1 + 1e-5) + 1e-3
        assert len(np.unique(out[a:b])) <= 2
    assert_array_equal(np.sign(out[x != 0]) >= 0, x[x != 0] >= 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "ratio"), [(1000, 0.01), (1000, 0.5), (1000, 1.0), (200_001, 0.003), (3, 0.01)])
def test_top_k_keeps_the_largest(dtype, n, ratio):
    x = normal(n, dtype)
    k = max(1, round(ratio * n))
    out = through(TopK(ratio), x, CodecContext())
    kept = np.flatnonzero(out)
    assert_array_equal(kept, np.sort(np.argsort(-np.abs(x), kind="stable")[:k]))
    assert_array_equal(out[kept], x[kept])
    assert squares(out - x) <= (1 - k / n) * squares(x)


@pytest.mark.parametrize("nonzero", [0, 1, 9, 10, 11, 300, 600])
def test_top_k_among_zeros(nonzero):
    x = normal(1000)
    x[np.random.default_rng(nonzero).permutation(1000)[nonzero:]] = 0
    where = _largest(x, 10)
    assert_array_equal(where, np.sort(np.argsort(-np.abs(x), kind="stable")[:10]))


def test_of_equal_items_the_first_are_sent():
    x = np.array([1, -2, 2, 3, 2, -2], "float32")
    assert through(TopK(0.5), x, CodecContext()).tolist() == [0, -2, 2, 3, 0, 0]


def test_random_k_draws_anew_each_step_the_same_on_all_ranks():
    x = np.arange(1.0, 1001)
    outs = [through(RandomK(0.1), x, CodecContext(seed=1, step=step, rank=step % 3)) for step in range(2000)]
    assert_array_equal(through(RandomK(0.1), x, CodecContext(seed=1, step=5)), outs[5])
    assert all((out != 0).sum() == 100 for out in outs)
    counts = np.sum([out != 0 for out in outs], axis=0)
    assert np.abs(counts / 2000 - 0.1).max() < 5 * math.sqrt(0.09 / 2000), "some places are drawn more often"
    assert np.mean([squares(out - x) for out in outs]) == pytest.approx((1 - 0.1) * squares(x), rel=0.01)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_power_sgd_is_exact_for_matrices_of_its_rank(dtype, rank):
    random = np.random.default_rng(0)
    first = random.standard_normal((30, rank)) @ random.standard_normal((rank, 20))
    second = random.standard_normal((25, rank)) @ random.standard_normal((rank, 40))
    biases = [random.standard_normal(n) for n in (20, 40, 3)]
    x = np.concatenate([first.ravel(), biases[0], second.ravel(), biases[1], biases[2]]).astype(dtype)
    context = CodecContext(matrices=((0, 30, 20), (620, 25, 40), (1660, 3, 1)))
    codec, state = PowerSGD(rank), {}
    for _ in range(3):
        out = decoded(codec, codec.encode(x, context, state=state), x, context)
    assert_allclose(out, x, atol=1e-5 * np.abs(x).max() if dtype == "float32" else 1e-12)
    for where in (slice(600, 620), slice(1620, 1663)):
        assert_array_equal(out[where], x[where])
    assert codec.nbytes(len(x), dtype, context) == (rank * (50 + 65) + 63) * x.itemsize


def test_power_sgd_comes_to_the_best_approximation():
    random = np.random.default_rng(0)
    left, right = (np.linalg.qr(random.standard_normal((n, 20)))[0] for n in (60, 50))
    spectrum = 0.7 ** np.arange(20)
    x, state = ((left * spectrum) @ right.T).ravel(), {}
    context = CodecContext(matrices=((0, 60, 50),))
    errors = [
        squares(x - decoded(PowerSGD(3), PowerSGD(3).encode(x, context, state=state), x, context)) for _ in range(25)
    ]
    best = squares(spectrum[3:])
    assert errors[0] > 1.01 * best, "the start is as good as the end: nothing is shown"
    assert errors[-1] == pytest.approx(best, rel=1e-3)
    assert max(errors) <= squares(x)


def test_power_sgd_recovers_from_a_gradient_of_zeros():
    x, state = normal(600), {}
    context = CodecContext(matrices=((0, 30, 20),))
    for vector in (x, np.zeros_like(x), x, x, x):
        out = decoded(PowerSGD(2), PowerSGD(2).encode(vector, context, state=state), x, context)
    assert squares(out - x) < 0.95 * squares(x)


# --- error feedback ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_lost_for_ever(codec, dtype):
    n, state = 1400, {}
    sent, given_up = np.zeros(n), np.zeros(n)
    for step in range(60):
        g = normal(n, dtype, seed=step)
        context = stamp_for(n, step=step)
        sent += g
        given_up += decoded(codec, codec.encode_next(g, state, context), g, context)
    (residual,) = (array for name, array in state.items() if "residual" in name)
    assert_allclose(given_up + residual, sent, atol=1e-4 if dtype == "float32" else 1e-12)
    forget(state)
    assert not state


@pytest.mark.parametrize(("codec", "delta"), [(TopK(0.05), 0.05), (OneBit(), 0.6), (Int8(), 0.99), (FP16(), 0.999)])
def test_the_residual_stays_bounded(codec, delta):
    # Karimireddy et al., lemma 3: for a compressor that loses at most 1 - delta of a vector's square.
    n, state, largest = 2000, {}, 0.0
    for step in range(400):
        g = normal(n, seed=step)
        largest = max(largest, squares(g))
        codec.encode_next(g, state, CodecContext(step=step))
        residual = state["compression.residual 0"]
        assert squares(residual) <= 4 * (1 - delta) / delta**2 * largest


def test_vectors_of_one_state_are_told_apart_by_their_part():
    state = {}
    for part, value in enumerate((1.0, 100.0)):
        OneBit().encode_next(np.array([value, 3 * value], "float32"), state, CodecContext(part=part))
    assert {name: array.tolist() for name, array in state.items()} == {
        "compression.residual 0": [-1.0, 1.0],
        "compression.residual 1": [-100.0, 100.0],
    }


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_a_gpu_the_arithmetic_is_the_same(monkeypatch, codec, dtype):
    cupy = fake_cupy.install(monkeypatch)
    states: dict = {np: {}, cupy: {}}
    for step in range(3):
        x, context = normal(1500, dtype, seed=step), stamp_for(1500, step=step)
        payloads = [codec.encode_next(xp.asarray(x), states[xp], context) for xp in (np, cupy)]
        assert type(payloads[1]) is cupy.ndarray
        assert_array_equal(payloads[1].get(), payloads[0])
        outs = [decoded(codec, payloads[0], x, context), cupy.zeros(1500, dtype)]
        codec.decode(payloads[1], outs[1], context)
        assert_array_equal(outs[1].get(), outs[0])
    for name, array in states[np].items():
        assert_array_equal(states[cupy][name].get(), array)


def test_every_codec_is_a_frozen_leaf():
    assert {type(codec) for codec in CODECS} == set(Codec.__subclasses__())
