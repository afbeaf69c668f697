"""What a network promises beside its gradients."""

import copy
import pickle
import threading

import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose, assert_array_equal

from models.cases import CASES, MULTI, batch, parameters
from scaleml.models import MLP, LinearModel, Network, Signature
from scaleml.models.blocks import Workspace


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("model", "signature"), CASES)
def test_composing_the_blocks_is_loss_grad(model, signature, weighted):
    net = model.build(signature)
    w = parameters(net)
    x, y = batch(signature)
    weight = np.linspace(0, 1, len(x), dtype="f4") if weighted else None
    expected = np.full(net.size, np.nan, "f4")
    sums = net.loss_grad(w, x, y, weight, expected)

    out, saved, h = np.full(net.size, np.nan, "f4"), [], x
    for block in net.blocks:
        h, kept = block.forward(w[block.start : block.stop], h)
        saved.append(kept)
    assert_array_equal(h, net.scores(w, x))
    loss_sum, weight_sum, d = net.loss.gradient(h, y, weight, Workspace(np, "f4"))
    for block, kept in zip(reversed(net.blocks), reversed(saved), strict=True):
        d = block.backward(w[block.start : block.stop], kept, d, out[block.start : block.stop])
    assert_array_equal(out, expected)
    assert (loss_sum, weight_sum) == sums
    assert d.shape == x.shape  # the first block, too, can say the gradient with respect to its input


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_parts_are_final_when_they_are_said_to_be(model, signature):
    net = model.build(signature)
    w, (x, y) = parameters(net), batch(signature)
    expected, out, parts = np.empty(net.size, "f4"), np.full(net.size, np.nan, "f4"), []
    net.loss_grad(w, x, y, None, expected)

    def ready(part):
        assert_array_equal(out[part], expected[part])
        assert np.isnan(out[: part.start]).all()
        parts.append(part)

    net.loss_grad(w, x, y, None, out, ready)
    assert parts == [slice(block.start, block.stop) for block in reversed(net.blocks)]


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_blocks_tile_the_vector(model, signature):
    net = model.build(signature)
    assert net.blocks[0].start == 0
    assert [block.start for block in net.blocks[1:]] == [block.stop for block in net.blocks[:-1]]
    assert net.blocks[-1].stop == net.size
    assert [block.index for block in net.blocks] == list(range(len(net.blocks)))
    assert repr(net).startswith("Network([")


def test_gradient_with_respect_to_the_input():
    net = MLP((5, 4), "tanh", dtype="float64").build(MULTI)
    w = parameters(net)
    x, y = batch(MULTI, dtype="float64")

    def run(x):
        saved, h = [], x
        for block in net.blocks:
            h, kept = block.forward(w[block.start : block.stop], h)
            saved.append(kept)
        loss, _, d = net.loss.gradient(h, y, None, Workspace(np, "f8"))
        for block, kept in zip(reversed(net.blocks), reversed(saved), strict=True):
            d = block.backward(w[block.start : block.stop], kept, d, np.empty(block.stop - block.start))
        return loss, d

    _, dx = run(x)
    moved = x.copy()
    moved[2, 3] += 1e-6
    back = x.copy()
    back[2, 3] -= 1e-6
    assert_allclose(dx[2, 3], (run(moved)[0] - run(back)[0]) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_two_batches_in_flight_do_not_disturb_each_other(model, signature):
    net = model.build(signature)
    w = parameters(net)
    outs = []
    for interleaved in (False, True):
        out = []
        batches = [batch(signature, seed=seed) for seed in (1, 2)]
        runs = [_steps(net, w, *each, out) for each in batches]
        if interleaved:
            for _ in zip(*runs, strict=True):
                pass
        else:
            for run in runs:
                list(run)
        outs.append(out)
    for first, second in zip(*outs, strict=True):
        assert_array_equal(first, second)


def _steps(net, w, x, y, out):
    """Go through forward and backward block by block, giving way after each."""
    g = np.empty(net.size, "f4")
    out.append(g)
    saved, work = [], Workspace(np, "f4")
    for block in net.blocks:
        x, kept = block.forward(w[block.start : block.stop], x, work)
        saved.append(kept)
        yield
    _, _, d = net.loss.gradient(x, y, None, work)
    for block in reversed(net.blocks):
        own = slice(block.start, block.stop)
        d = block.backward(w[own], saved.pop(), d, g[own], block.start > 0, work)
        yield


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_scratch_never_shows(model, signature):
    """Batches of changing length through one network give what fresh networks give, and results are not overwritten."""
    net = model.build(signature)
    w = parameters(net)
    kept = []
    for n in (9, 30, 1, 9, 0):
        x, y = batch(signature, n, seed=n)
        out, fresh = np.empty(net.size, "f4"), np.empty(net.size, "f4")
        sums = net.loss_grad(w, x, y, None, out)
        assert sums == model.build(signature).loss_grad(w, x, y, None, fresh)
        assert_array_equal(out, fresh)
        kept.append((net.scores(w, x), net.scores(w, x).copy(), x, x.copy(), y, y.copy()))
    for now, before, x, x_before, y, y_before in kept:
        assert_array_equal(now, before)
        assert_array_equal(x, x_before)
        assert_array_equal(y, y_before)


def test_copies_work_in_threads_at_once():
    net = MLP((16,), "tanh").build(MULTI)
    w = parameters(net)
    batches = [batch(MULTI, 64, seed) for seed in range(4)]
    expected = []
    for x, y in batches:
        expected.append(np.empty(net.size, "f4"))
        net.loss_grad(w, x, y, None, expected[-1])
    found = [np.empty((50, net.size), "f4") for _ in batches]

    def work(rank):
        own = copy.copy(net)
        for out in found[rank]:
            own.loss_grad(w, *batches[rank], None, out)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outs, one in zip(found, expected, strict=True):
        assert (outs == one).all()


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_pickle_carries_no_scratch(model, signature):
    net = model.build(signature)
    w, (x, y) = parameters(net), batch(signature, 500)
    before = len(pickle.dumps(net))
    out, again = np.empty(net.size, "f4"), np.empty(net.size, "f4")
    net.loss_grad(w, x, y, None, out)
    data = pickle.dumps(net)
    assert len(data) == before < 3000
    other = pickle.loads(data)
    assert isinstance(other, Network)
    other.loss_grad(w, x, y, None, again)
    assert_array_equal(out, again)


@pytest.mark.parametrize(("model", "signature"), CASES)
def test_sparse_data_gives_the_same(model, signature):
    net = model.build(signature)
    w, (x, y) = parameters(net), batch(signature)
    x[x < 0.3] = 0
    dense, sparse = np.empty(net.size, "f4"), np.empty(net.size, "f4")
    assert_allclose(
        net.loss_grad(w, x, y, None, dense), net.loss_grad(w, scipy.sparse.csr_matrix(x), y, None, sparse), rtol=1e-6
    )
    assert_allclose(sparse, dense, rtol=1e-5, atol=1e-5)
    assert net.scores(w, scipy.sparse.csr_array(x)).dtype == np.float32
    assert_allclose(net.scores(w, scipy.sparse.csr_array(x)), net.scores(w, x), rtol=1e-5, atol=1e-5)


def test_float32_is_float32_all_the_way():
    for model, signature in CASES:
        net = model.build(signature)
        w, (x, _) = net.init(0), batch(signature)
        assert w.dtype == np.float32
        assert net.scores(w, x).dtype == np.float32
    assert LinearModel(dtype="float64").build(Signature(2)).init(0).dtype == np.float64


def test_views_and_fortran_order_give_the_same():
    net = MLP((5,)).build(MULTI)
    w, (x, y) = parameters(net), batch(MULTI, 20)
    expected, out = np.empty(net.size, "f4"), np.empty(2 * net.size + 3, "f4")
    net.loss_grad(w, x[4:12], y[4:12], None, expected)
    part = out[3 : 3 + net.size]
    net.loss_grad(w, np.asfortranarray(x)[4:12], y[4:12], None, part)
    assert_allclose(part, expected, rtol=1e-5, atol=1e-6)
