"""KerasModel: any model of Keras 3 as one that every strategy trains, on Keras's PyTorch, JAX and TensorFlow backends."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import numpy as np

from scaleml.arrays import Array
from scaleml.checks import check_option
from scaleml.frameworks.keras_backend import TRAINED, loaded
from scaleml.frameworks.keras_losses import KerasLoss, LossLike
from scaleml.frameworks.keras_recipe import Configured, arrays_of, model_of, seeded
from scaleml.frameworks.network import ModuleNetwork
from scaleml.models.base import Model, Signature
from scaleml.models.buffers import BUFFER_RULES, BufferRule

loaded()

__all__ = ["KerasModel"]

_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, repr=False, eq=False)
class KerasModel(Model):
    """A Keras model and its loss, as a model.

    Parameters
    ----------
    model : keras.Model or callable
        A model, which is copied and never changed: training begins with its weights as they are, or, where it has not been built yet,
        with such as are drawn under the run's seed. Or a factory, a function of nothing that makes one, which is called under that
        seed. Only variables that are trainable are trained.
    loss : str, keras loss or callable, optional
        ``"cross_entropy"``, ``"binary_cross_entropy"``: of scores (logits). ``"sparse_categorical_crossentropy"``,
        ``"categorical_crossentropy"`` (y holds labels here, too) and ``"binary_crossentropy"``: of probabilities, as they are in
        Keras. ``"mse"``, ``"l1"``, ``"huber"`` and ``"smooth_l1"`` for numbers; any other name that Keras has; a loss of
        ``keras.losses``; or, in Keras's order, a function of (y_true, y_pred) that returns one number, the mean over the rows, or a
        loss for each row, (rows,), which alone can have weights. None for the loss that the model was compiled with.
    buffers : {"average", "rank0", "local"}
        What becomes of variables that are not trained but change, such as those of BatchNormalization, where each rank has seen
        other rows; see the notes of `TorchModel`.
    classifier : bool, optional
        Whether y holds labels; by default the loss says so, and of a function of one's own it is False.

    Raises
    ------
    ValueError, TypeError
        For a model or a loss that cannot be trained so, with the remedy.

    Notes
    -----
    A process has one backend of Keras, chosen by ``KERAS_BACKEND`` before Keras is imported: workers load Keras with the one that the
    model was made with. The optimizer and the metrics that a model was compiled with are not used: those are ``train``'s. A compiled
    loss that differs from ``loss`` is an error.

    Parameters are float32 (a policy ``mixed_bfloat16`` computes in less). float64 there is on TensorFlow alone: on the other backends
    Keras makes float32 of the result type of any operation on float64 (``keras.backend.result_type``), whatever the policy.

    Under PyTorch the model's variables are views into the flat vector; under JAX and TensorFlow they are slices of it, as of a
    `JaxModel`.

    Rows that are records are several inputs: the model is given a dict by the fields' names, such as those of its ``keras.Input``
    layers, or a list where they are called "0", "1" and so on.

    A model travels by its configuration and the user's own classes and functions that it names; one that cannot be made again by
    that says so at once, and is passed as a factory.

    Examples
    --------
    >>> import keras  # after os.environ["KERAS_BACKEND"] = "torch", or "jax"
    >>> from scaleml import KerasModel
    >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", name="scores")])
    >>> model = KerasModel(net, "sparse_categorical_crossentropy")
    >>> model
    KerasModel(Sequential, loss='sparse_categorical_crossentropy')
    >>> model.build(Signature(4, 3, "multiclass")).named_parts
    (('scores/kernel', slice(0, 12, None)), ('scores/bias', slice(12, 15, None)))
    """

    model: Any
    loss: LossLike | None = None
    buffers: BufferRule = "average"
    classifier: bool | None = None
    dtype: str = field(init=False)
    _loss: KerasLoss = field(init=False)
    _make: Callable[[], Any] = field(init=False)
    _built: dict[Signature, tuple[list[Array] | None, ModuleNetwork]] = field(init=False)
    """With the weights that they begin with: copied, for what has been compiled serves again."""
    takes_any_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        backend = loaded().backend.backend()
        if backend not in TRAINED:
            raise ValueError(
                f"Keras's backend is {backend!r}, but models are trained with {' or '.join(map(repr, TRAINED))}: set "
                "os.environ['KERAS_BACKEND'] before keras is imported for the first time"
            )
        check_option("buffers", self.buffers, BUFFER_RULES)
        check_option("classifier", self.classifier, (True, False, None))
        check_kind(self.model)
        is_model = isinstance(self.model, loaded().Model)
        object.__setattr__(self, "_make", Configured(self.model) if is_model else self.model)
        with seeded(0):
            first = self.model if is_model else model_of(self.model)
        object.__setattr__(self, "_loss", loss_of(first, self.loss))
        object.__setattr__(self, "dtype", dtype_of(first))
        object.__setattr__(self, "_built", {})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        """Return how it was made: the model's class stands for the model."""
        name = getattr(self.model, "__name__", type(self.model).__name__)
        more = f", buffers={self.buffers!r}" if self.buffers != "average" else ""
        more += f", classifier={self.classifier!r}" if self.classifier is not None else ""
        return f"KerasModel({name}, {self._loss.label}{more})"

    @property
    def how_to_scale(self) -> str:
        """What one does about pixels from 0 to 255 that the model takes as they are, in words."""
        return "begin the model with keras.layers.Rescaling(1 / 255), or divide X by 255"

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""
        return self._loss.targets in ("classes", "labels") if self.classifier is None else self.classifier

    def build(self, signature: Signature) -> ModuleNetwork:
        """Return the network for data of this signature; see `Model.build`."""
        if signature.sparse:
            raise ValueError("X is sparse, but Keras models take dense rows: pass X.toarray(), or a linear model")
        values = None
        if isinstance(self._make, Configured) and self.model.built and self.model.variables:
            values = arrays_of(self.model)
        known, network = self._built.get(signature, (None, None))
        if network is None or not _equal(values, known):
            network = self._network(signature, values)
            self._built[signature] = values, network
        return copy.copy(network)

    def _network(self, signature: Signature, values: list[Array] | None) -> ModuleNetwork:
        backend, given = loaded().backend.backend(), (self._make, signature, values, self._loss, self.buffers)
        if backend == "torch":
            from scaleml.frameworks import keras_torch

            return keras_torch.network_of(*given)
        if backend == "jax":
            from scaleml.frameworks import keras_jax

            return keras_jax.network_of(*given)
        from scaleml.frameworks import keras_tensorflow

        return keras_tensorflow.network_of(*given, self.dtype)


def _equal(values: list[Array] | None, others: list[Array] | None) -> bool:
    if values is None or others is None:
        return values is others
    return all(np.array_equal(one, other) for one, other in zip(values, others, strict=True))


def check_kind(model: object) -> None:
    """Raise TypeError unless it is a model or a factory of models."""
    keras = loaded()
    if isinstance(model, keras.Model):
        return
    if isinstance(model, keras.Layer):
        raise TypeError(f"model is a layer, {type(model).__name__}: pass keras.Sequential([keras.Input(...), layer])")
    if isinstance(model, keras.optimizers.Optimizer):
        raise TypeError(
            "model is an optimizer of Keras's: pass the model; the optimizer is train's, such as optimizer=scaleml.SGD(0.1)"
        )
    if not callable(model):
        raise TypeError(f"model is a {type(model).__name__}: must be a keras.Model, or a function that makes one")


def loss_of(model: Any, loss: LossLike | None) -> KerasLoss:
    """Return the loss that is asked for, or that a model was compiled with.

    Raises
    ------
    ValueError
        There is none, or there are two.
    """
    compiled = model.loss if getattr(model, "compiled", False) else None
    if compiled is not None:
        _log.info("the optimizer and the metrics that %s was compiled with are not used", type(model).__name__)
    if loss is None:
        if compiled is None:
            raise ValueError(
                "loss is missing, and the model was compiled with none: pass loss, such as 'cross_entropy' or 'mse'"
            )
        return KerasLoss.of(compiled)
    own = KerasLoss.of(loss)
    if compiled is not None and compiled is not loss and not own.same_as(KerasLoss.of(compiled)):
        shown = repr(compiled) if isinstance(compiled, str) else type(compiled).__name__
        raise ValueError(f"{own.label}, but the model was compiled with loss={shown}: leave out one of them")
    return own


def dtype_of(model: Any) -> str:
    """Return the dtype of a model's variables.

    Raises
    ------
    ValueError
        It is none that can be trained.
    """
    trained = model.trainable_variables
    own = str(trained[0].dtype) if trained else str(model.dtype_policy.variable_dtype)
    if own == "float64" and loaded().backend.backend() != "tensorflow":
        raise ValueError(
            f"{type(model).__name__} has variables of float64, but Keras's operations compute in float32 on its PyTorch and JAX backends, "
            "whatever the policy: make it in float32, or use TorchModel or JaxModel, which have float64, as Keras has on TensorFlow"
        )
    if own not in ("float32", "float64"):
        raise ValueError(
            f"{type(model).__name__} has variables of {own}, in which small updates are lost: make it with the policy 'mixed_{own}', which "
            "keeps variables in float32"
        )
    return own
