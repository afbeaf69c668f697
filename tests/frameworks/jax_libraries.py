"""Functions of JAX with state, plain and as the libraries make them: each returns ``apply``, the parameters and the state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frameworks.family import dense
from scaleml import JaxModel

COLUMNS = 7


def plain():
    """Batch normalisation and dropout in a few lines; and a count."""

    def apply(params, state, x, key=None, train=False):
        h = x @ params["first"]["kernel"] + params["first"]["bias"]
        mean, var = (h.mean(0), h.var(0)) if train else (state["norm"]["mean"], state["norm"]["var"])
        h = jnp.tanh((h - mean) / jnp.sqrt(var + 1e-3))
        if train:
            h = h * jax.random.bernoulli(key, 0.8, h.shape) / 0.8
        moved = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state["norm"], {"mean": mean, "var": var})
        after = {"norm": moved, "seen": state["seen"] | train, "steps": state["steps"] + 1}
        return h @ params["second"]["kernel"] + params["second"]["bias"], after

    state = {
        "norm": {"mean": np.zeros(6, "f4"), "var": np.ones(6, "f4")},
        "seen": np.array(False),
        "steps": np.array(0),
    }
    return apply, {"first": dense(COLUMNS, 6), "second": dense(6, 3)}, state


def linen():
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(6)(x))
            return nn.Dense(3)(nn.Dropout(0.2, deterministic=not train)(nn.tanh(x)))

    module = Net()
    variables = module.init(jax.random.key(0), np.ones((1, COLUMNS), "f4"))

    def apply(params, state, x, key=None, train=False):
        rngs = {"dropout": key} if train else None
        variables = {"params": params, "batch_stats": state}
        outputs, changed = module.apply(variables, x, train=train, rngs=rngs, mutable=["batch_stats"])
        return outputs, changed["batch_stats"]

    for wrong, words in ((module, "pass its apply.*of Flax"), (module.apply, "'batch_stats' beside its 'params'")):
        with pytest.raises((TypeError, ValueError), match=words):
            JaxModel(wrong, variables, "cross_entropy")
    return apply, variables["params"], variables["batch_stats"]


def nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first, self.second = nnx.Linear(COLUMNS, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)
            self.norm, self.dropout = nnx.BatchNorm(6, momentum=0.9, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)

        def __call__(self, x):
            return self.second(self.dropout(nnx.tanh(self.norm(self.first(x)))))

    module = Net(nnx.Rngs(0))
    graph, params, state, rest = nnx.split(module, nnx.Param, nnx.BatchStat, ...)

    def apply(params, state, x, key=None, train=False):
        module = nnx.merge(graph, params, state, rest, copy=True)
        if train:
            module.train()
            nnx.reseed(module, default=key)
        else:
            module.eval()
        return module(x), nnx.state(module, nnx.BatchStat)

    with pytest.raises(TypeError, match=r"holds its parameters itself.*nnx\.split"):
        JaxModel(module, params, "cross_entropy")
    return apply, params, state


def haiku():
    hk = pytest.importorskip("haiku")

    def forward(x, train):
        h = jnp.tanh(hk.BatchNorm(True, True, 0.9)(hk.Linear(6)(x), train))
        return hk.Linear(3)(hk.dropout(hk.next_rng_key(), 0.2, h) if train else h)

    net = hk.transform_with_state(forward)
    params, state = net.init(jax.random.key(0), np.ones((2, COLUMNS), "f4"), True)
    with pytest.raises(TypeError, match=r"transformed.apply\(params, state, key, x\)"):
        JaxModel(net, params, "cross_entropy")
    return lambda params, state, x, key=None, train=False: net.apply(params, state, key, x, train), params, state


def equinox():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        first: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        dropout: eqx.nn.Dropout
        second: eqx.nn.Linear

        def __init__(self, key):
            self.first, self.second = (
                eqx.nn.Linear(*sizes, key=one)
                for sizes, one in zip([(COLUMNS, 6), (6, 3)], jax.random.split(key), strict=True)
            )
            self.norm, self.dropout = eqx.nn.BatchNorm(6, "rows", mode="batch"), eqx.nn.Dropout(0.2)

        def __call__(self, x, state, key):
            h, state = self.norm(self.first(x), state)
            return self.second(self.dropout(jnp.tanh(h), key=key)), state

    module, state = eqx.nn.make_with_state(Net)(jax.random.key(0))
    params, static = eqx.partition(module, eqx.is_inexact_array)

    def apply(params, state, x, key=None, train=False):
        module = eqx.nn.inference_mode(eqx.combine(params, static), not train)
        keys = jax.random.split(jax.random.key(0) if key is None else key, len(x))
        rows = jax.vmap(module, in_axes=(0, None, 0), out_axes=(0, None), axis_name="rows")
        return rows(x, state, keys)

    with pytest.raises(TypeError, match=r"holds its parameters itself.*eqx\.partition"):
        JaxModel(module, params, "cross_entropy")
    return apply, params, state


LIBRARIES = (plain, linen, nnx, haiku, equinox)
