"""JaxModel: any function of JAX and its pytree of parameters as a model that every strategy trains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import numpy as np

try:
    import jax  # noqa: F401  asked for here, so that what is missing is said in words
except ImportError as error:
    raise ImportError(
        f"JaxModel needs JAX, which cannot be imported here ({error}): pip install 'dask-scaleml[jax]', here and on all workers"
    ) from error

from scaleml.checks import check_option
from scaleml.frameworks.jax_function import PureFunction, check_apply, check_params
from scaleml.frameworks.jax_losses import JaxLoss, LossLike
from scaleml.frameworks.jax_network import JaxNetwork
from scaleml.models.base import DTYPES, Model, Signature
from scaleml.models.buffers import BUFFER_RULES, BufferRule

__all__ = ["JaxModel"]


@final
@dataclass(frozen=True, repr=False, eq=False)
class JaxModel(Model):
    """A function of JAX, its parameters and its loss, as a model.

    Parameters
    ----------
    apply : callable
        ``apply(params, x)`` returns the outputs of the rows ``x`` of a batch, first axis rows, and is pure: JAX compiles it. With
        ``state`` it is ``apply(params, state, x)``, and returns the outputs and the state after them. If it has a parameter called
        ``key`` (or ``rng``), it is given one by that name: in training a PRNG key, as for dropout, that is another in each step and on
        each rank; in evaluation and prediction None. One called ``train`` (``training``, ``is_training``) is True in training, else
        False. ``apply`` of Flax modules and of Haiku's transformed functions are such functions, or one lambda away.
    params : pytree of arrays, or callable
        What training begins with: all its arrays are trained, none is changed. Or a function ``init(key)`` that makes one: it is
        called with ``jax.random.key(seed)``, so that the same seed gives the same parameters everywhere.
    loss : str or callable
        ``"cross_entropy"`` or ``"nll"`` for classes, or token numbers of any shape, ``"binary_cross_entropy"`` (of scores) for two
        classes or labels of 0 and 1, ``"mse"``, ``"l1"``, ``"huber"`` or ``"smooth_l1"`` for numbers; or a function of (outputs,
        targets) in ``jax.numpy``, such as Optax's, that returns one number, the mean over the rows, or a loss for each row, (rows,),
        which alone can have weights.
    dtype : {"float32", "float64"}
        Of parameters, gradients and inputs. JAX need not be told: float64 is switched on for this model's own computations, and
        nowhere else in the process.
    classifier : bool, optional
        Whether y holds labels; by default the loss says so, and of a function of one's own it is False.
    state : pytree of arrays, optional
        What a step in training changes and no gradient does, as it is at the start: Flax's ``batch_stats``, Haiku's state. In
        evaluation and prediction it is read, and what ``apply`` returns of it is dropped.
    buffers : {"average", "rank0", "local"}
        What becomes of the state where each rank has seen other rows; see the notes of `TorchModel`. Of whole numbers and truth values
        the average is the largest.

    Raises
    ------
    ValueError, TypeError
        For a function, parameters or a loss that cannot be trained so, with the remedy.

    Notes
    -----
    All parameters are one vector, by the paths of the pytree: ``{"dense": {"bias": ..., "kernel": ...}}`` are ``dense/bias`` and
    ``dense/kernel``. JAX shares the vector's memory where that lies on 64 bytes; the gradients of a step are copied into the rank's
    buffer once.

    ``apply`` is compiled for each number of rows that a rank meets: as a rule two or three, for the last batch of an epoch is
    shorter, and a few more where a rank reads many partitions; a row is never made up to fill a batch.

    X as bytes (uint8) and as floats becomes ``dtype``; other integers are token numbers, int32 (int64 beside float64). Rows that
    are records are several inputs: ``x`` is a dict by the fields' names, or a tuple where they are called "0", "1" and so on.

    ``run.model.module`` is the pytree of the trained parameters; with ``state`` that and the pytree of the state, ``(params, state)``.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from scaleml import JaxModel
    >>> def init(key):
    ...     return {"kernel": jax.random.normal(key, (4, 3)) / 2, "bias": jnp.zeros(3)}
    >>> def apply(params, x):
    ...     return x @ params["kernel"] + params["bias"]
    >>> model = JaxModel(apply, init, loss="cross_entropy")
    >>> model
    JaxModel(apply, init, loss='cross_entropy')
    >>> model.build(Signature(4, 3, "multiclass")).named_parts
    (('bias', slice(0, 3, None)), ('kernel', slice(3, 15, None)))
    """

    apply: Callable[..., Any]
    params: Any
    loss: LossLike
    dtype: str = "float32"
    classifier: bool | None = None
    state: Any = None
    buffers: BufferRule = "average"
    _loss: JaxLoss = field(init=False)
    _function: PureFunction = field(init=False)
    _built: dict[Signature, JaxNetwork] = field(init=False)
    """Kept, and copied, for what has been compiled serves again."""
    takes_any_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_option("dtype", self.dtype, DTYPES)
        check_option("classifier", self.classifier, (True, False, None))
        check_option("buffers", self.buffers, BUFFER_RULES)
        check_apply(self.apply)
        object.__setattr__(self, "_loss", JaxLoss.of(self.loss))
        dtype = np.dtype(self.dtype)
        check_params(self.params, dtype)
        object.__setattr__(self, "_function", PureFunction(self.apply, self.params, dtype, self.state))
        object.__setattr__(self, "_built", {})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        """Return how it was made: names stand for functions, and for what is no function three points."""
        names = (getattr(one, "__name__", "...") for one in (self.apply, self.params))
        loss = repr(self.loss) if isinstance(self.loss, str) else getattr(self.loss, "__name__", "...")
        more = [f", dtype={self.dtype!r}"] if self.dtype != "float32" else []
        more += [f", classifier={self.classifier!r}"] if self.classifier is not None else []
        more += [", state=..."] if self.state is not None else []
        more += [f", buffers={self.buffers!r}"] if self.buffers != "average" else []
        return f"JaxModel({', '.join(names)}, loss={loss}{''.join(more)})"

    @property
    def how_to_scale(self) -> str:
        """What one does about pixels from 0 to 255 that the model takes as they are, in words."""
        return "begin the function with x = x / 255, or divide X by 255"

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""
        return self._loss.targets in ("classes", "labels") if self.classifier is None else self.classifier

    def build(self, signature: Signature) -> JaxNetwork:
        """Return the network for data of this signature; see `Model.build`."""
        if signature.sparse:
            raise ValueError("X is sparse, but functions of JAX take dense rows: pass X.toarray(), or a linear model")
        if signature not in self._built:
            network = JaxNetwork(self._function, self._loss, signature, self.dtype, self.buffers)
            self._function.check_travels(loss=self.loss)
            self._built[signature] = network
        return copy.copy(self._built[signature])
