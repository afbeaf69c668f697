"""The models and optimizers on a real GPU, against the CPU in float64."""

import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose

from scaleml.arrays import namespace, rows, to_numpy
from scaleml.models import MLP, LinearModel, Signature
from scaleml.optim import SGD, AdaGrad, Adam, AdamW, clip

pytestmark = pytest.mark.gpu

MULTI = Signature(20, 4, "multiclass", "float64")
CASES = [
    (LinearModel(dtype="float64"), Signature(20)),
    (LinearModel("hinge", dtype="float64"), MULTI),
    (LinearModel("huber", penalty="elasticnet", dtype="float64"), Signature(20, 2, "regression")),
    (LinearModel("epsilon_insensitive", dtype="float64"), Signature(20, 1, "regression")),
    (MLP((16, 8), dtype="float64"), MULTI),
    (MLP((16,), "tanh", dtype="float64"), Signature(20)),
    (MLP((16,), "logistic", dtype="float64"), MULTI),
]


@pytest.fixture
def cupy():
    cupy = pytest.importorskip("cupy")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no GPU: {error}")
    if not count:
        pytest.skip("no GPU")
    return cupy


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "optimizer", [SGD(0.1, momentum=0.9, nesterov=True, clip_norm=1.0), Adam(), AdaGrad(), AdamW()]
)
@pytest.mark.parametrize(("model", "signature"), CASES)
def test_training_on_the_gpu_is_training_on_the_cpu(cupy, model, signature, optimizer, sparse):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 20))
    x[x < -0.5] = 0
    y = {
        "binary": rng.integers(0, 2, 64).astype("f8"),
        "multiclass": rng.integers(0, 4, 64).astype("i4"),
        "regression": rng.standard_normal((64, 2) if signature.n_outputs == 2 else 64),
    }[signature.task]
    weight = rng.random(64)
    net = model.build(signature)
    start = rng.standard_normal(net.size)
    found = []
    for xp in (np, cupy):
        w, g = xp.asarray(start.copy()), xp.empty(net.size)
        state = optimizer.init(net.size, "f8", like=w)
        data = xp.asarray(x)
        if sparse:
            csr = scipy.sparse.csr_matrix(x)
            data = csr if xp is np else __import__("cupyx.scipy.sparse").scipy.sparse.csr_matrix(csr)
        targets, weights = xp.asarray(y), xp.asarray(weight)
        for t in range(1, 6):
            part = slice(8 * t, 8 * t + 24)
            batch = rows(data, part.start, part.stop)
            _, total = net.loss_grad(w, batch, targets[part], weights[part], g)
            g /= total
            net.objective_grad(w, g)
            optimizer.apply(w, g, state, t)
            optimizer.apply(w, g[:3].copy(), state, t, where=xp.asarray([5, 0, 9]))
        assert namespace(w) is xp
        predicted = net.predict_proba(w, data) if model.loss == "log_loss" else net.predict(w, data)
        found.append((to_numpy(w), net.statistics(w, data, targets, weights), to_numpy(predicted), clip(w, 1e-3)))
    for cpu, gpu in zip(*found, strict=True):
        assert_allclose(gpu, cpu, rtol=1e-7, atol=1e-9)
