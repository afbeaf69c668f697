"""The backend of Keras: one for a process, chosen before Keras is loaded; a worker takes that of the model that it is sent."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, Final, final

__all__ = ["Backend", "loaded"]

TRAINED: Final = ("torch", "jax", "tensorflow")
"""Backends whose models are trained here."""


def loaded(backend: str | None = None) -> Any:
    """Return Keras, loaded with this backend where it was not loaded before; None for the one that the process chooses itself.

    Raises
    ------
    ImportError
        There is no Keras, or not its backend.
    RuntimeError
        It has been loaded with another backend.
    """
    if backend is not None and "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend
        os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # there may be others on a GPU
    try:
        keras: Any = import_module("keras")
    except ImportError as error:
        missing = getattr(error, "name", None) or ""
        if missing.partition(".")[0] == "tensorflow" and backend is None:
            raise ImportError(
                "Keras looks for TensorFlow, its default backend, which is not installed: set os.environ['KERAS_BACKEND'] = 'torch', or "
                "'jax', before keras is imported for the first time"
            ) from error
        what = "Keras" if missing in ("", "keras") else f"Keras with its backend {backend or ''}".rstrip()
        raise ImportError(
            f"KerasModel needs {what}, which cannot be imported here ({error}): pip install 'dask-scaleml[keras]' and the backend, here "
            "and on all workers"
        ) from error
    own = keras.backend.backend()
    if backend is not None and own != backend:
        raise RuntimeError(
            f"the model was made with Keras's backend {backend!r}, but this process has loaded Keras with {own!r}, and can have one: set "
            f"KERAS_BACKEND={backend} for all workers"
        )
    return keras


@final
class Backend:
    """A backend, as the first part of a pickle: Keras is loaded with it before anything after it is unpickled.

    Parameters
    ----------
    name : {"torch", "jax", "tensorflow"}
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.name,)


def _received(name: str) -> Backend:
    loaded(name)
    return Backend(name)
