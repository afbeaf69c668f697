"""What every run of the tests has: one backend of Keras, a quick JAX, and no doctests of frameworks that are not installed."""

import os
from importlib.util import find_spec

_missing = [name for name in ("torch", "jax", "keras") if not find_spec(name)]

# A process has one backend; Keras on the other one is tested in a process of its own.
os.environ.setdefault("KERAS_BACKEND", "jax" if "torch" in _missing else "torch")
# Tiny functions of JAX take longer to compile than to run.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

collect_ignore_glob = [
    f"scaleml/frameworks/{pattern}" for name in _missing for pattern in (f"{name}*.py", f"keras_{name}.py")
]
