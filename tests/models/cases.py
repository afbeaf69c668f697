"""Networks of every kind, batches for them and parameters."""

import numpy as np

from scaleml.models import MLP, LinearModel, Signature

MULTI = Signature(6, 3, "multiclass")
CASES = [
    (LinearModel(), Signature(6)),
    (LinearModel(), MULTI),
    (LinearModel("huber"), Signature(6, 2, "regression")),
    (MLP(()), MULTI),
    (MLP((5,), "tanh"), Signature(6)),
    (MLP((5, 4), "logistic"), MULTI),
    (MLP((5, 4, 3), loss="squared_error"), Signature(6, 1, "regression")),
]


def batch(signature, n=9, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, signature.n_features)).astype(dtype)
    if signature.task == "multiclass":
        return x, rng.integers(0, signature.n_outputs, n).astype(np.int32)
    if signature.task == "binary":
        return x, rng.integers(0, 2, n).astype(dtype)
    shape = (n, signature.n_outputs) if signature.n_outputs > 1 else (n,)
    return x, rng.standard_normal(shape).astype(dtype)


def parameters(net, seed=0):
    return np.random.default_rng(seed).standard_normal(net.size).astype(net.dtype)
