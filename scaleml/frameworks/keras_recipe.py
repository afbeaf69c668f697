"""How a Keras model is made again, here and on workers: by its configuration and the user's own classes, or by a factory."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final, final

import numpy as np

from scaleml.arrays import Array
from scaleml.frameworks.inputs import Fields, fields_of, trial_rows
from scaleml.frameworks.keras_backend import Backend, loaded
from scaleml.frameworks.travel import why_it_stays
from scaleml.models.base import Signature

__all__ = ["Configured", "Recipe", "array_of", "arrays_of", "is_seed", "model_of", "seeded", "shown"]

_lock: Final = threading.RLock()
"""Of the process's random streams, and of what Keras keeps of a process."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the streams that Keras draws its layers' seeds from (Python's and NumPy's) while the block lasts; then they go on as if
    nothing had been.
    """
    with _lock:
        kept, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  layers draw from it, whatever we do
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
        finally:
            random.setstate(kept)
            np.random.set_state(legacy)  # noqa: NPY002


@final
class Recipe:
    """Makes a Keras model as often as it is needed; it can be pickled.

    Parameters
    ----------
    make : callable
        Returns a model, built or not.
    signature : Signature
        Of the data, by which an unbuilt model is built.
    values : list of arrays, or None
        Of all variables, in their order; None where each model that is made draws its weights.

    Attributes
    ----------
    drawn : bool
        Whether each model that is made draws its weights.
    names, shapes : tuples
        Of the variables that are trained.
    others : tuple of str
        The names of those that are not, but the seeds.
    values : list of arrays
        Of all variables of the first.
    """

    def __init__(self, make: Callable[[], Any], signature: Signature, values: list[Array] | None) -> None:
        self._make, self._signature = make, signature
        self.drawn = values is None
        self._backend = loaded().backend.backend()
        model = self._built()
        if values is not None:
            _assign(model.variables, values, "the model")
        self.values = arrays_of(model)
        trained = model.trainable_variables
        self.names = tuple(one.path.removeprefix(f"{model.name}/") for one in trained)
        self.others = tuple(one.path for one in model.non_trainable_variables if not is_seed(one))
        self.shapes = tuple(tuple(one.shape) for one in trained)
        self.label = type(model).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (
            Backend(self._backend),
            loaded().Model,
            {**self.__dict__},
        )  # the class, so that workers are asked for Keras

    @property
    def fields(self) -> Fields:
        """The model's inputs."""
        return fields_of(self._signature.row)

    def model(self, values: list[Array] | None = None) -> Any:
        """Return a model with the variables of the first, or with these."""
        model = self._built()
        _assign(model.variables, self.values if values is None else values, self.label)
        return model

    def start(self, seed: int) -> Any:
        """Return a model as a run of this seed begins."""
        return self._built(seed) if self.drawn else self.model()

    def drawn_model(self) -> Any:
        """Return a model whose weights are drawn from the process's streams as they are."""
        return self._built(None)

    def check_travels(self, **parts: object) -> None:
        """Raise ValueError for what cannot be sent to workers."""
        for name, part in {"model": self._make, **parts}.items():
            error = why_it_stays(part)
            if error is not None:
                raise ValueError(
                    f"{name} cannot be sent to workers ({type(error).__name__}: {error}): pass a factory, a function that makes the model "
                    "and closes over plain values alone"
                )

    def _built(self, seed: int | None = 0) -> Any:
        with nullcontext() if seed is None else seeded(seed):
            model = model_of(self._make)
            if not (model.built and model.variables):
                try:
                    model(self.given(trial_rows(self._signature, 2)), training=False)
                except Exception as error:
                    raise ValueError(
                        f"{type(model).__name__} cannot be built on rows of X ({shown(error)}): give its first layer the shape of a row, "
                        f"keras.Input({self._shape}), or call it once on some"
                    ) from error
        return model

    def given(self, x: Array) -> Any:
        """Return rows of X as Keras takes them: an array, or one for each input."""
        fields = self.fields
        parts = [np.ascontiguousarray(x[name]) for name in fields.names] or [x]
        parts = [one.astype(self._signature.dtype) if one.dtype == np.uint8 else one for one in parts]
        if not fields.names:
            return parts[0]
        return dict(zip(fields.names, parts, strict=True)) if fields.by_name else parts

    @property
    def _shape(self) -> tuple[int, ...]:
        row = self._signature.row
        return (self._signature.n_features,) if row is None else tuple(row.shape)


@final
class Configured:
    """A model's configuration and the classes and functions of the user's that it names: called, makes the model again, without weights.

    Parameters
    ----------
    model : keras.Model

    Raises
    ------
    ValueError
        It cannot be made by its configuration.
    """

    def __init__(self, model: Any) -> None:
        self._backend = loaded().backend.backend()
        self._own = _own_objects(model)
        try:
            config = loaded().saving.serialize_keras_object(model)
            config.pop("compile_config", None)
            self._config = config
            self()
        except Exception as error:
            raise ValueError(
                f"{type(model).__name__} cannot be made by its configuration, by which it would travel to workers ({shown(error)}): pass a "
                "factory, a function that makes the model, or give it get_config"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _configured, (Backend(self._backend), self._own, self._config)

    def __call__(self) -> Any:
        """Return a model of the same layers."""
        config = copy.deepcopy(self._config)  # Keras takes apart what it is given of a functional model
        return loaded().saving.deserialize_keras_object(config, custom_objects=self._own, safe_mode=False)


def _configured(backend: Backend, own: dict[str, Any], config: dict[str, Any]) -> Configured:
    made = object.__new__(Configured)
    made._backend, made._own, made._config = backend.name, own, config
    return made


def _unpickled(backend: Backend, kind: type, state: dict[str, Any]) -> Recipe:
    recipe = object.__new__(Recipe)
    recipe.__dict__.update(state)
    return recipe


def model_of(make: Callable[[], Any]) -> Any:
    """Return what a factory makes.

    Raises
    ------
    TypeError
        It cannot be called, or makes no model.
    """
    name = getattr(make, "__name__", type(make).__name__)
    try:
        model = make()
    except TypeError as error:
        raise TypeError(
            f"the factory {name} cannot be called without arguments, or failed ({shown(error)}): pass a model, or a function of nothing "
            "that makes one"
        ) from error
    if not isinstance(model, loaded().Model):
        raise TypeError(f"{name!r} returns a {type(model).__name__}, but a factory has to return a keras.Model")
    return model


def is_seed(variable: Any) -> bool:
    """Return whether a variable is the state of a layer's random numbers."""
    return bool(variable.path.endswith("seed_generator_state")) and tuple(variable.shape) == (2,)


def shown(error: Exception) -> str:
    """Return an error in a line: Keras's have many."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def arrays_of(model: Any) -> list[Array]:
    """Return the values of all variables of a model."""
    return [array_of(one.value) for one in model.variables]


def array_of(tensor: Any) -> Array:
    """Return a copy of a tensor of the backend as an array."""
    if hasattr(tensor, "detach"):  # of PyTorch
        tensor = tensor.detach().cpu()
    return np.array(tensor.numpy() if hasattr(tensor, "numpy") else tensor)


def _assign(variables: list[Any], values: list[Array], label: str) -> None:
    if [tuple(one.shape) for one in variables] != [one.shape for one in values]:
        raise ValueError(f"{label} is another one each time that it is made: its variables have other shapes")
    for one, value in zip(variables, values, strict=True):
        one.assign(value)


def _own_objects(model: Any) -> dict[str, Any]:
    """Return the classes and functions of a model that are no part of Keras, by name."""
    found: dict[str, Any] = {}
    for layer in model._flatten_layers():
        for one in (type(layer), *vars(layer).values()):
            whose = getattr(one, "__module__", None) or ""
            if (isinstance(one, type) or hasattr(one, "__code__")) and whose.partition(".")[0] != "keras":
                found[one.__name__] = one
    return found
