"""Small models of Keras's for rows of seven numbers, on the backend that the process has."""

from __future__ import annotations

import keras
import numpy as np

from scaleml.models import Signature

N, COLUMNS = 9, 7
CLASSES = Signature(COLUMNS, 3, "multiclass")
TWO, NUMBER = Signature(COLUMNS), Signature(COLUMNS, 1, "regression")
BACKEND = keras.backend.backend()


def net(outputs=3, last=None, *layers):
    first = keras.layers.Dense(6, "tanh", name="first")
    return keras.Sequential([keras.Input((COLUMNS,)), first, *layers, keras.layers.Dense(outputs, last, name="second")])


def data():
    random = np.random.default_rng(5)
    return random.standard_normal((N, COLUMNS)).astype("f4"), random.integers(0, 3, N).astype("i4")


class Half(keras.layers.Layer):
    """A layer of the user's, by whose class a worker makes it again."""

    def call(self, x):
        return x / 2
