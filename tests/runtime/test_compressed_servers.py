"""Parameter servers whose gradients and answers are compressed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from runtime import harness
from runtime.test_compression import DIGITS, MARGIN, TRAINED, digits, loss
from scaleml.api.validation import check_sparse
from scaleml.compression import FP16, Int8, OneBit, PowerSGD, RandomK, TopK
from scaleml.models import MLP, LinearModel, Signature
from scaleml.optim import SGD
from scaleml.runtime.sparsity import why_dense
from scaleml.strategies import ParameterServer
from scaleml.telemetry import Ledger

# A random place waits on the way to the server and on the way back: see RandomK.
CODECS = [FP16(), Int8(), OneBit(), TopK(0.01), RandomK(0.5), PowerSGD(1)]


def train_digits(strategy, epochs=DIGITS["epochs"], **settings):
    x, y = digits()
    settings = {**DIGITS, "epochs": epochs, "validation": (x[TRAINED:], y[TRAINED:]), **settings}
    return harness.on_threads(MLP((48,)), x[:TRAINED], y[:TRAINED], strategy=strategy, **settings)


@pytest.fixture(scope="module")
def plain():
    return loss(train_digits(ParameterServer("bsp")))


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_it_learns_what_it_learns_without(codec, plain):
    # In step, so that nothing depends on who comes first.
    strategy = ParameterServer("bsp", servers=2, compression=codec)
    assert loss(train_digits(strategy)) < MARGIN * plain
    assert loss(train_digits(strategy, epochs=2 * DIGITS["epochs"])) < plain


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("consistency", [{"consistency": "ssp", "staleness": 2}, {"consistency": "async"}])
def test_it_learns_out_of_step_too(codec, consistency):
    result = train_digits(ParameterServer(**consistency, compression=codec), workers=3)
    assert loss(result) < 0.3 * result.history.evaluations["loss"][0]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_in_step_a_run_has_the_same_bits_every_time(codec):
    runs = [
        train_digits(ParameterServer("bsp", servers=3, compression=codec), epochs=1, shared_memory=shared)
        for shared in (True, False)
    ]
    assert_array_equal(runs[0].params, runs[1].params)
    assert np.isfinite(runs[0].params).all()


BYTES = {Int8(): 0.27, OneBit(): 0.04, TopK(0.01): 0.03}


@pytest.mark.parametrize("way", ["threads-tcp", "workers"])
def test_bytes_go_down_both_ways(way, request):
    if way == "workers":
        request.getfixturevalue("cluster")
    x, y = digits()

    def a_push(codec):
        strategy = ParameterServer(compression=codec)
        # Enough epochs that the whole parameters, which rank 0 gives to all at the end, hardly count.
        settings = {**DIGITS, "batch_size": 64 if way == "workers" else 32, "epochs": 3, "strategy": strategy}
        if way == "workers":
            result = harness.on_workers(MLP((256, 128)), x, y, **settings)
        else:
            result = harness.on_threads(MLP((256, 128)), x, y, shared_memory=False, **settings)
        ledger = Ledger(result.history)
        pushes = ledger.updates[:2].sum()
        return np.array([ledger.bytes_sent[:2].sum(), ledger.bytes_sent[2:].sum()]) / pushes

    dense = a_push(None)
    assert (dense >= 4 * 50_826).all()
    for codec, share in list(BYTES.items())[-1 if way == "workers" else 0 :]:
        sent = a_push(codec)
        assert (sent <= share * dense).all(), codec
        assert (sent >= 0.3 * share * dense).all(), codec


def test_sparse_and_compressed_do_not_go_together():
    network = LinearModel().build(Signature(64, 10, "multiclass", sparse=True))
    asked = ParameterServer(compression=Int8(), sparse=True)
    with pytest.raises(ValueError, match=r"cannot be sparse here: a codec writes whole vectors"):
        check_sparse(asked, why_dense(network, asked, SGD(0.1), None))
    x, y = digits()
    settings = {**DIGITS, "epochs": 1, "strategy": ParameterServer(compression=Int8())}
    assert harness.on_threads(LinearModel(), csr_array(x), y, **settings).state == "finished"


def test_a_server_takes_codecs_alone():
    with pytest.raises(ValueError, match="compression='int8'"):
        ParameterServer(compression="int8")
