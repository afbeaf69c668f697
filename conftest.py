"""What every run of the tests has: one backend of Keras, a quick JAX, and no doctests of frameworks that are not installed."""

import os
from importlib.util import find_spec

_missing = [name for name in ("torch", "jax", "keras") if not find_spec(name)]

# A process has one backend; Keras on the others is tested in processes of their own.
os.environ.setdefault("KERAS_BACKEND", "jax" if "torch" in _missing else "torch")
# Tiny functions of JAX take longer to compile than to run.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

collect_ignore_glob = [
    f"scaleml/frameworks/{pattern}" for name in _missing for pattern in (f"{name}*.py", f"keras_{name}.py")
]
if os.environ["KERAS_BACKEND"] != "tensorflow":  # whose modules load Keras with it
    collect_ignore_glob += ["scaleml/frameworks/tensorflow*.py", "scaleml/frameworks/keras_tensorflow*.py"]
