"""The same code on CuPy's arrays: here on a strict stand-in, on which NumPy's functions fail."""

import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_array_equal

import fake_cupy
from scaleml.arrays import concatenate_rows, is_sparse, namespace, rows, to_numpy
from scaleml.models import MLP, LinearModel, Signature
from scaleml.optim import SGD, AdaGrad, Adam, AdamW, clip

BINARY, MULTI = Signature(6), Signature(6, 3, "multiclass")
ONE, TWO = Signature(6, 1, "regression"), Signature(6, 2, "regression")
CASES = [
    *[(LinearModel("log_loss", penalty=penalty), BINARY) for penalty in ("l2", "l1", "elasticnet", None)],
    *[(LinearModel(loss), signature) for loss in ("log_loss", "hinge") for signature in (BINARY, MULTI)],
    *[(LinearModel(loss), ONE) for loss in ("squared_error", "huber", "epsilon_insensitive")],
    *[(LinearModel(loss), TWO) for loss in ("squared_error", "huber", "epsilon_insensitive")],
    *[(MLP((5, 4), activation), MULTI) for activation in ("relu", "tanh", "logistic")],
    (MLP((5,)), BINARY),
    (MLP((5,), loss="squared_error"), TWO),
]


@pytest.fixture
def cupy(monkeypatch):
    return fake_cupy.install(monkeypatch)


def train(xp, model, signature, optimizer, sparse):
    """Do all that a network and an optimizer can; return every result as NumPy's."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 6)).astype("f4")
    x[x < -0.5] = 0
    y = {
        "binary": rng.integers(0, 2, 12).astype("f4"),
        "multiclass": rng.integers(0, 3, 12).astype("i4"),
        "regression": rng.standard_normal((12, 2) if signature.n_outputs == 2 else 12).astype("f4"),
    }[signature.task]
    weight = rng.random(12).astype("f4")
    net = model.build(signature)
    w = xp.asarray(rng.standard_normal(net.size).astype("f4"))
    if sparse:
        x = scipy.sparse.csr_matrix(x)
        x = x if xp is np else fake_cupy.csr_matrix.of(x)
    else:
        x = xp.asarray(x)
    y, weight, g = xp.asarray(y), xp.asarray(weight), xp.zeros(net.size, "f4")
    state = optimizer.init(net.size, "f4", like=w)
    results = []
    for t, each in enumerate((None, weight, None), start=1):
        results += map(float, net.loss_grad(w, x, y, each, g))
        results.append(to_numpy(g).copy())
        net.objective_grad(w, g)
        results.append(net.penalty(w))
        optimizer.apply(w, g, state, t)
        optimizer.apply(w, g[2:5], state, t, where=slice(2, 5))
        optimizer.apply(w, g[:2], state, t, where=xp.asarray([4, 1]))
        optimizer.observe_epoch(1.0, state)
        results.append(to_numpy(w).copy())
    results += [to_numpy(net.scores(w, x)), to_numpy(net.predict(w, x)), net.statistics(w, x, y, weight)]
    results += [net.statistics(w, x, y), clip(g, 1e-3), to_numpy(g)]
    if model.loss == "log_loss":
        results.append(to_numpy(net.predict_proba(w, x)))
    return results


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("model", "signature"), CASES)
def test_models(cupy, model, signature, sparse):
    optimizer = SGD(0.1, momentum=0.9, clip_norm=1.0)
    expected = train(np, model, signature, optimizer, sparse)
    for ours, theirs in zip(train(cupy, model, signature, optimizer, sparse), expected, strict=True):
        assert type(ours) is type(theirs)
        assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(),
        SGD(momentum=0.9, nesterov=True),
        Adam(),
        AdaGrad(),
        Adam(schedule="adaptive", n_iter_no_change=1),
        AdamW(),
        SGD(momentum=0.9, weight_decay=0.1),
    ],
)
def test_optimizers(cupy, optimizer):
    expected = train(np, LinearModel(), BINARY, optimizer, False)
    for ours, theirs in zip(train(cupy, LinearModel(), BINARY, optimizer, False), expected, strict=True):
        assert_array_equal(ours, theirs)


def test_arrays(cupy):
    x = cupy.asarray(np.arange(12.0).reshape(4, 3))
    assert namespace(x) is cupy
    assert namespace(np.zeros(1), x) is cupy
    assert namespace(np.zeros(1)) is np
    assert_array_equal(to_numpy(rows(x, 1, 3)), to_numpy(x)[1:3])
    assert_array_equal(to_numpy(concatenate_rows([x, x])), np.vstack([to_numpy(x)] * 2))
    dense = np.eye(4, 3, dtype="f4")
    sparse = fake_cupy.csr_matrix.of(scipy.sparse.csr_matrix(dense))
    assert is_sparse(sparse)
    assert namespace(sparse) is cupy
    assert_array_equal(to_numpy(sparse), dense)
    assert_array_equal(to_numpy(rows(sparse, 1, 4)), dense[1:4])
    assert_array_equal(to_numpy(concatenate_rows([sparse, rows(sparse, 1, 4)])), np.vstack([dense, dense[1:4]]))


@pytest.mark.parametrize(
    "misuse",
    [
        np.exp,
        lambda x: np.concatenate([x, x]),
        np.asarray,
        lambda x: x + np.ones(2),
        lambda x: np.ones(2) + x,
        lambda x: np.zeros(2).__setitem__(slice(None), x),
    ],
)
def test_the_stand_in_is_strict(cupy, misuse):
    with pytest.raises((TypeError, ValueError)):
        misuse(cupy.asarray(np.ones(2)))
