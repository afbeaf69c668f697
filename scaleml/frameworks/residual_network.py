"""A small residual network for images, with what a comparison of strategies needs: the same mathematics on any number of ranks.

He, Zhang, Ren and Sun, Deep residual learning for image recognition, CVPR 2016, section 4.2: three stages of two-layer blocks, each
stage half as large and twice as wide. Normalised over groups of channels (Wu and He, Group normalization, ECCV 2018) by default: means
over a batch would be those of each rank's part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from scaleml.checks import check_integer, check_option
from scaleml.models.base import Model, Signature
from scaleml.models.flat_model import FlatModel

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ResidualNetwork"]


@final
@dataclass(frozen=True, repr=False)
class ResidualNetwork(Model):
    """A residual network that classifies images.

    Parameters
    ----------
    width : int
        Channels of the first stage, a multiple of 4; the third has four times as many.
    blocks : int
        Of each stage: the network has ``6 * blocks + 2`` layers.
    norm : {"group", "batch"}
        What is normalised over: groups of 4 channels of an image, or a channel of all images of a rank's part of the batch.

    Raises
    ------
    ValueError
        For a value that breaks its rule, and for X that is no images: (n, channels, height, width), bytes or floats.

    Notes
    -----
    Bytes are brought to -1 to 1; floats are taken as they are. Needs PyTorch.

    Examples
    --------
    >>> from scaleml import AllReduce, datasets, train
    >>> digits = datasets.load("digit_images")
    >>> run = train(ResidualNetwork(8), digits.X, digits.y, strategy=AllReduce(), workers=2, epochs=1)  # doctest: +SKIP
    """

    width: int = 16
    blocks: int = 1
    norm: Literal["group", "batch"] = "group"
    dtype: ClassVar[str] = "float32"  # type: ignore[misc]  # what images are computed in is no setting here
    takes_any_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer("width", self.width, 4, rule="a multiple of 4, at least 4")
        if self.width % 4:
            raise ValueError(
                f"width={self.width!r}: must be a multiple of 4, the channels that are normalised together"
            )
        check_integer("blocks", self.blocks, 1)
        check_option("norm", self.norm, ("group", "batch"))

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""
        return True

    def build(self, signature: Signature) -> FlatModel:
        """Return the flat model for images of this signature; see `Model.build`."""
        from scaleml.frameworks.torch import TorchModel

        shape = () if signature.row is None else signature.row.shape
        if len(shape) != 3 or min(shape[1:]) < 4:
            got = f"rows of shape {shape}" if signature.row is not None else f"{signature.n_features} columns"
            raise ValueError(
                f"X has {got}, but a ResidualNetwork takes images, (n, channels, height, width), of "
                "4 x 4 pixels at least: reshape X, or use MLP()"
            )
        bytes_ = signature.row is not None and signature.row.base.kind == "u"
        made = _Factory(
            shape[0], self.width, self.blocks, 2 if signature.task == "binary" else signature.n_outputs, self.norm
        )
        return TorchModel(made, loss="cross_entropy", transform=_centred if bytes_ else None).build(signature)


def _centred(pixels: Tensor) -> Tensor:
    return pixels / 127.5 - 1


@dataclass(frozen=True)
class _Factory:
    """Makes the module: pickled without PyTorch being there, which is imported where it is called."""

    channels: int
    width: int
    blocks: int
    classes: int
    norm: str

    def __call__(self) -> nn.Module:
        from torch import nn

        layers: list[Any] = [
            nn.Conv2d(self.channels, self.width, 3, padding=1, bias=False),
            self._norm(self.width),
            nn.ReLU(),
        ]
        before = self.width
        for stage in range(3):
            after = self.width << stage
            for block in range(self.blocks):
                layers.append(self._block(before, after, stride=2 if stage and not block else 1))
                before = after
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, self.classes)]
        return nn.Sequential(*layers)

    def _block(self, before: int, after: int, stride: int) -> nn.Module:
        from torch import nn

        from scaleml.frameworks.torch_layers import Residual

        body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            self._norm(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            self._norm(after),
        )
        changed = stride != 1 or before != after
        short = (
            nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), self._norm(after))
            if changed
            else nn.Identity()
        )
        return Residual(body, short)

    def _norm(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.BatchNorm2d(channels) if self.norm == "batch" else nn.GroupNorm(channels // 4, channels)
