"""TorchModel: any PyTorch module as a model that every strategy trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, final

try:
    import torch
    from torch import nn
except ImportError as error:
    raise ImportError(
        f"TorchModel needs PyTorch, which cannot be imported here ({error}): pip install 'dask-scaleml[torch]', here and on all workers"
    ) from error

from scaleml.arrays import Array
from scaleml.checks import check_option
from scaleml.frameworks.torch_forward import Forward, Transform
from scaleml.frameworks.torch_losses import LossLike, TorchLoss
from scaleml.frameworks.torch_module import ModuleLike, check_kind, check_module, check_same_rest, check_travels, made
from scaleml.frameworks.torch_network import TorchNetwork
from scaleml.frameworks.torch_parametrized import let_travel
from scaleml.models.augmentation import Augmentation
from scaleml.models.base import DTYPES, Model, Signature
from scaleml.models.buffers import BUFFER_RULES, BufferRule

__all__ = ["TorchModel"]

_DEFAULTS: Final[dict[str, object]] = {
    "dtype": "float32",
    "compute": None,
    "buffers": "average",
    "classifier": None,
    "augment": (),
}
"""Settings that its repr shows where they are others."""


@final
@dataclass(frozen=True, repr=False, eq=False)
class TorchModel(Model):
    """A PyTorch module and its loss, as a model.

    Parameters
    ----------
    module : torch.nn.Module or callable
        A module, on the CPU, which is copied and never changed; training begins with its weights as they are. Or a factory, a function
        of nothing that makes one: it is called under the run's seed, so that the same seed gives the same weights everywhere. Only
        parameters with ``requires_grad`` are trained; the others, and buffers, travel along. Of a factory these must be the same in
        each call.
    loss : str, torch.nn loss or callable
        ``"cross_entropy"`` or ``"nll"`` for classes, or token numbers of any shape, ``"binary_cross_entropy"`` (of scores, as
        ``BCEWithLogitsLoss``) for two classes or labels of 0 and 1, ``"mse"``, ``"l1"``, ``"huber"`` or ``"smooth_l1"`` for numbers; a
        loss of ``torch.nn``, with its settings; or a function of (outputs, targets) that returns one number, the mean over the rows,
        or a loss for each row, (rows,), which alone can have weights. Labels of y become codes in their sorted order: so of
        ``torch.nn.CrossEntropyLoss`` ``weight`` has one number for each label that y has, in that order, and ``ignore_index`` is
        a code; where labels are not 0, 1, 2, ... it is refused.
    transform : callable, optional
        Called on the rank with a batch's tensor (of several inputs with all, by name): what it returns goes to the module. Such as
        ``lambda x: x / 255``.
    dtype : {"float32", "float64"}
        Of parameters, gradients and inputs.
    compute : {"bfloat16"} or None
        In which layers compute where PyTorch's autocast finds that safe; parameters stay as they are.
    buffers : {"average", "rank0", "local"}
        What becomes of buffers, such as BatchNorm's running statistics, where each rank has seen other rows: before each evaluation,
        at the end, and where another strategy takes over all ranks get the mean of theirs (of counts the largest), or those of rank 0;
        or each keeps its own, and the run leaves those of rank 0. See the notes.
    classifier : bool, optional
        Whether y holds labels; by default the loss says so, and of a function of one's own it is False.
    augment : tuple of Augmentation
        What changes rows at random in training, the same ones in every run of a seed: see `scaleml.data.augment`.

    Raises
    ------
    ValueError, TypeError
        For a module or a loss that cannot be trained so, with the remedy.

    Notes
    -----
    All parameters are one vector, into which the module's are views, and gradients are views into the rank's buffer: nothing is copied
    in a step. X as bytes (uint8) and as floats becomes ``dtype``; other integers are token numbers, int64. Rows that are records are
    several inputs: a field each, by name, or by place where they are called "0", "1" and so on.

    *Buffers.* A rank computes BatchNorm's statistics, and normalises, over its own part of a batch, as PyTorch's
    ``DistributedDataParallel`` does: its running statistics follow those parts. Running statistics are moving averages, and the mean of
    moving averages is the moving average of the means, so that it does not matter how often ranks agree. What the rule means:

    =====================================  =====================================================================================
    strategy                               running statistics of the model that the run leaves, by ``buffers="average"``
    =====================================  =====================================================================================
    ``Serial``                             those of the one rank; no rule changes them
    ``AllReduce``                          the mean over all ranks, which have gone the same way on other rows
    ``ParameterServer`` of any kind        the mean over the ranks that train, however many steps each took; servers have none
    ``Hogwild``                            the same: parameters are shared, statistics are not
    ``LocalSGD``, ``Gossip``               the mean over all ranks, as of their parameters, though no rank trained with that mean
    =====================================  =====================================================================================

    The gradient that warms a rank up before its first step leaves no trace in them. The model of the best evaluation has those of that
    evaluation, a failed run's last good parameters have the last that are finite.

    A module is tried on five made-up rows before anything is placed, in evaluation mode: what does not fit shows at once.

    Examples
    --------
    >>> import torch
    >>> from scaleml import TorchModel
    >>> model = TorchModel(torch.nn.Linear(4, 3), loss="cross_entropy")
    >>> model
    TorchModel(Linear, loss='cross_entropy')
    >>> network = model.build(Signature(4, 3, "multiclass"))
    >>> network.size, network.named_parts
    (15, (('weight', slice(0, 12, None)), ('bias', slice(12, 15, None))))
    """

    module: ModuleLike
    loss: LossLike
    transform: Transform | None = None
    dtype: str = "float32"
    compute: Literal["bfloat16"] | None = None
    buffers: BufferRule = "average"
    classifier: bool | None = None
    augment: tuple[Augmentation, ...] = ()
    _loss: TorchLoss = field(init=False)
    takes_any_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_kind(self.module)
        own = TorchLoss.of(self.loss)
        if self.transform is not None and not callable(self.transform):
            raise TypeError(f"transform is a {type(self.transform).__name__}: must be a function of a batch's tensor")
        check_option("dtype", self.dtype, DTYPES)
        check_option("compute", self.compute, ("bfloat16", None))
        check_option("buffers", self.buffers, BUFFER_RULES)
        check_option("classifier", self.classifier, (True, False, None))
        if self.compute is not None and self.dtype != "float32":
            raise ValueError(
                f"compute={self.compute!r} with dtype={self.dtype!r}: layers compute in less than float32; leave one out"
            )
        object.__setattr__(self, "_loss", own)
        if isinstance(self.module, nn.Module):
            check_module(self.module, self._torch_dtype)
        else:
            made(self.module, 0, self._torch_dtype)

    def __repr__(self) -> str:
        """Return how it was made: the module's class stands for the module."""
        name = (
            type(self.module).__name__
            if isinstance(self.module, nn.Module)
            else getattr(self.module, "__name__", "...")
        )
        loss = repr(self.loss) if isinstance(self.loss, str) else getattr(self.loss, "__name__", f"{self.loss}")
        more = {name: getattr(self, name) for name in _DEFAULTS}
        shown = "".join(f", {key}={value!r}" for key, value in more.items() if value != _DEFAULTS[key])
        return f"TorchModel({name}, loss={loss}{', transform=...' if self.transform else ''}{shown})"

    @property
    def how_to_scale(self) -> str:
        """What one does about pixels from 0 to 255 that the module takes as they are, in words."""
        if self.transform is not None:
            return "have transform= divide by 255, too, or divide X by 255"
        return "pass transform=lambda x: x / 255 to TorchModel, or divide X by 255"

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""
        return self._loss.targets in ("classes", "labels") if self.classifier is None else self.classifier

    def check_labels(self, labels: Array) -> None:
        """Raise ValueError where the loss would ignore another class than its ``ignore_index`` says."""
        self._loss.check_labels(labels)

    def build(self, signature: Signature) -> TorchNetwork:
        """Return the network for data of this signature; see `Model.build`."""
        if signature.sparse:
            raise ValueError("X is sparse, but modules take dense rows: pass X.toarray(), or a linear model")
        dtype, source = self._torch_dtype, self.module
        template = let_travel(made(source, 0, dtype))
        check_same_rest(source, template, dtype)
        factory = None if isinstance(source, nn.Module) else source
        forward = Forward(signature, dtype, self.transform, torch.bfloat16 if self.compute else None)
        network = TorchNetwork(template, factory, forward, self._loss, signature, self.buffers)
        check_travels(module=template, factory=factory, loss=self.loss, transform=self.transform)
        return network

    @property
    def _torch_dtype(self) -> torch.dtype:
        return torch.float32 if self.dtype == "float32" else torch.float64
