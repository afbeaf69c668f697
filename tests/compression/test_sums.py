"""Sums over ranks through every codec: what travels, what is fed back, and the same bits everywhere."""

from __future__ import annotations

from time import perf_counter as clock

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from compression.test_codecs import CODECS, normal, stamp_for
from scaleml.comm import Mismatch, inprocess, simulated
from scaleml.comm.transport.frame import HEADER
from scaleml.compression import FP16, CodecContext, Int8, OneBit, PowerSGD, RandomK, TopK

STEPS = 12
SIZES = (1, 2, 3, 5)


def weight_of(step):
    """Short batches among the others, and one without any weight."""
    return {3: 8.0, 7: 0.0}.get(step, 64.0)


def gradients(step, ranks, n, dtype="float32"):
    """Every rank's sum over its part of the batch."""
    return [weight_of(step) * normal(n, dtype, seed=100 * step + rank) for rank in range(ranks)]


def trained(group, codec, n, dtype, steps=STEPS):
    """Return the sums of each step, and what the rank still owes."""
    state, sums = {}, []
    for step in range(steps):
        g = gradients(step, group.size, n, dtype)[group.rank]
        codec.allreduce(g, weight_of(step), group, state, stamp_for(n, seed=1, step=step, rank=group.rank))
        sums.append(g)
    owed = np.zeros(n)
    for name, array in state.items():
        if name == "compression.residual 0":
            owed += array
        elif name == "compression.residual of sums":
            owed[slice(*group.part(group.rank, n))] += array
    return np.array(sums), owed


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("size", SIZES)
def test_sums_and_residuals_are_all_that_was_given(codec, size):
    for n, dtype in (
        (0, "float32"),
        (1, "float32"),
        (2, "float32"),
        (4097, "float32"),
        (9001, "float64"),
    ):  # the last is large
        results = inprocess.run(size, trained, codec, n, dtype)
        for sums, _ in results:
            assert_array_equal(sums, results[0][0], "all ranks have the same bits")
        given, taken = np.zeros(n), np.zeros(n)
        for step in range(STEPS):
            if weight_of(step):
                given += np.sum(gradients(step, size, n, dtype), axis=0, dtype="f8") / weight_of(step)
                taken += results[0][0][step].astype("f8") / weight_of(step)
            else:
                assert not results[0][0][step].any()
        owed = np.sum([owed for _, owed in results], axis=0) / weight_of(STEPS - 1)
        assert_allclose(taken + owed, given, atol=2e-4 if dtype == "float32" else 1e-11)


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_all_ways_give_the_same_bits_every_time(codec):
    # Large enough for blocks through sockets and for shared memory, where the codec's sums take them.
    results = [
        inprocess.run(3, trained, codec, 70_001, "float32", 3, shared_memory=shared) for shared in (True, False, True)
    ]
    first = results[0][0][0]
    assert np.isfinite(first).all()
    assert first.any()
    for result in results:
        for sums, _ in result:
            assert_array_equal(sums, first)


@pytest.mark.parametrize("codec", [FP16(), Int8()], ids=repr)
def test_a_fine_codec_is_close_at_once(codec):
    for step, sums in enumerate(inprocess.run(3, trained, codec, 3000, "float32")[0][0]):
        expected = np.sum(gradients(step, 3, 3000), axis=0)
        assert np.linalg.norm(sums - expected) <= 0.05 * np.linalg.norm(expected)


BYTES = {FP16(): 0.502, Int8(): 0.27, OneBit(): 0.04, TopK(0.01): 0.03, RandomK(0.01): 0.011, PowerSGD(1): 0.04}


@pytest.mark.parametrize("codec", BYTES, ids=repr)
@pytest.mark.parametrize("shared", [True, False])
def test_two_ranks_send_what_is_promised(codec, shared):
    n, rows = 100_000, 250
    context = CodecContext(matrices=((0, rows, n // rows),))

    def sent(group):
        x = normal(n, seed=group.rank)
        group.meter.reset()
        codec.allreduce(x, 1.0, group, {}, context)
        coded = group.meter.bytes_sent
        group.meter.reset()
        group.allreduce(x)
        return coded, group.meter.bytes_sent

    for out, dense in inprocess.run(2, sent, shared_memory=shared):
        assert dense >= 4 * n
        assert out <= BYTES[codec] * dense
        least = codec.nbytes(n, "float32", context)
        assert least <= out <= least + 2 * HEADER + 16, "the meter counts what was sent, headers too"


@pytest.mark.parametrize("size", [2, 4])
def test_bytes_of_codecs_that_are_summed_by_owners_do_not_grow_with_the_ranks(size):
    def sent(group):
        group.meter.reset()
        Int8().allreduce(normal(100_000, seed=group.rank), 1.0, group, {}, CodecContext(rank=group.rank))
        return group.meter.bytes_sent

    for sent_by_rank in inprocess.run(size, sent):
        assert sent_by_rank <= 0.27 * 4 * 100_000 * 2 * (size - 1) / size


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (Int8(), OneBit(), "Int8.*OneBit|OneBit.*Int8"),
        (Int8(), TopK(0.1), "Int8.*TopK|TopK.*Int8"),
        (TopK(0.1), TopK(0.2), "604 items.*1204 items|1204 items.*604 items"),
        (RandomK(0.1), Int8(), "allreduce.*exchange.*Int8|exchange.*Int8.*allreduce"),
        (RandomK(0.1), None, "100 items.*1000 items|1000 items.*100 items"),
        (Int8(), None, "Int8.*no compression|no compression.*Int8"),
    ],
)
@pytest.mark.parametrize("shared", [True, False])
def test_ranks_with_different_codecs_are_told(one, other, message, shared):
    def rank(group):
        codec, x = (one, other)[group.rank], normal(1000)
        if codec is None:
            group.allreduce(x)
        else:
            codec.allreduce(x, 1.0, group, {}, CodecContext(rank=group.rank))

    with pytest.raises(Mismatch, match=message):
        inprocess.run(2, rank, shared_memory=shared)


@pytest.mark.parametrize("codec", [Int8(), TopK(0.1), PowerSGD(1)], ids=repr)
def test_coding_counts_as_communication(codec):
    def rank(group):
        x, context = normal(300_000, seed=group.rank), stamp_for(300_000, rank=group.rank)
        group.meter.reset()
        begin = clock()
        codec.allreduce(x, 1.0, group, {}, context)
        return group.meter.comm + group.meter.wait, clock() - begin

    for counted, passed in inprocess.run(2, rank):
        assert 0.5 * passed <= counted <= passed


def test_what_is_not_finite_names_its_rank():
    def rank(group):
        x = normal(1000)
        x[3] = np.inf if group.rank else 0
        Int8().allreduce(x, 1.0, group, {}, CodecContext(rank=group.rank, step=4))

    with pytest.raises(ValueError, match="rank 1, step 4: item 3"):
        inprocess.run(2, rank)


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_in_simulated_time_sums_have_the_same_bits_and_take_what_travels(codec):
    n = 20_001

    def work(group):
        sums, owed = trained(group, codec, n, "float32", steps=3)
        return sums, owed, group.meter.comm + group.meter.wait, group.clock.now()

    for (sums, owed), (virtual, left, inside, now) in zip(
        inprocess.run(3, trained, codec, n, "float32", 3), simulated.run(3, work), strict=True
    ):
        assert_array_equal(sums, virtual)
        assert_array_equal(owed, left)
        assert inside == pytest.approx(now), "coding takes no virtual time"
        assert now > 0
