"""TensorFlow, after Keras has been loaded with it: TensorFlow loads Keras itself, with whatever backend it finds."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import threadpoolctl

from scaleml.frameworks.keras_backend import loaded

__all__ = ["start", "tf"]

loaded("tensorflow")

tf: Final[Any] = import_module("tensorflow")


def start() -> None:
    """Have TensorFlow, before it starts, take no more cores than this rank has."""
    pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    if not pools:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(min(pools))
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # it has started
        pass
