"""Losses of a margin: two classes, or each class against the rest, after scikit-learn's ``SGDClassifier``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import final

from scaleml.arrays import Array
from scaleml.models.blocks import Workspace
from scaleml.models.losses import Loss

__all__ = ["MARGINS", "Margin", "make_margin"]

MARGINS = ("hinge", "log_loss", "squared_hinge", "modified_huber", "perceptron")


class Margin(Loss):
    """A loss of ``m = +-score``, the sign that of the label: for two classes, or one class against the rest, summed."""

    @abstractmethod
    def of_margin(self, margin: Array, work: Workspace) -> tuple[Array, Array]:
        """Return the losses and their derivatives by the margin; `margin` may be overwritten."""

    @final
    def evaluate(self, scores: Array, y: Array, work: Workspace) -> tuple[Array, Array]:
        """Return losses and slopes, both of the scores' shape; see `Loss.evaluate`."""
        sign = work.rows("sign", *scores.shape)
        if scores.ndim == 1:
            work.xp.multiply(y, 2, out=sign)
            sign -= 1
        else:
            sign[...] = -1
            sign[work.row_numbers(len(scores)), y] = 1
        scores *= sign
        losses, slopes = self.of_margin(scores, work)
        sign *= slopes
        return losses, sign


@final
class LogMargin(Margin):
    """``log(1 + exp(-m))``."""

    def of_margin(self, margin: Array, work: Workspace) -> tuple[Array, Array]:
        """Return ``log(1 + exp(-m))`` and ``(tanh(m / 2) - 1) / 2``, by a tanh that cannot overflow."""
        xp = work.xp
        slopes = work.rows("slopes", *margin.shape)
        losses = work.rows("losses", *margin.shape)
        xp.multiply(margin, 0.5, out=slopes)
        xp.tanh(slopes, out=slopes)
        xp.absolute(slopes, out=losses)
        losses += 1
        losses *= 0.5
        xp.log(losses, out=losses)
        xp.minimum(margin, 0, out=margin)
        xp.subtract(-margin, losses, out=losses)
        slopes -= 1
        slopes *= 0.5
        return losses, slopes


@final
class SquaredHinge(Margin):
    """``max(0, 1 - m)^2``."""

    def of_margin(self, margin: Array, work: Workspace) -> tuple[Array, Array]:
        """Return ``z^2`` and ``-2 z`` with ``z = max(0, 1 - m)``."""
        xp = work.xp
        xp.subtract(1, margin, out=margin)
        xp.maximum(margin, 0, out=margin)
        losses = xp.multiply(margin, margin, out=work.rows("losses", *margin.shape))
        margin *= -2
        return losses, margin


@final
class ModifiedHuber(Margin):
    """``max(0, 1 - m)^2`` for ``m >= -1``, ``-4 m`` below."""

    def of_margin(self, margin: Array, work: Workspace) -> tuple[Array, Array]:
        """Return ``a (2 z - a)`` and ``-2 a`` with ``z = max(0, 1 - m)`` and ``a = min(z, 2)``."""
        xp = work.xp
        xp.subtract(1, margin, out=margin)
        xp.maximum(margin, 0, out=margin)
        clipped = xp.minimum(margin, 2, out=work.rows("slopes", *margin.shape))
        margin *= 2
        margin -= clipped
        margin *= clipped
        clipped *= -2
        return margin, clipped


@final
class Perceptron(Margin):
    """``max(0, -m)``, with the slope -1 on the boundary, so that training leaves the origin."""

    def of_margin(self, margin: Array, work: Workspace) -> tuple[Array, Array]:
        """Return ``max(0, -m)`` and -1 where ``m <= 0``."""
        xp = work.xp
        wrong = xp.less_equal(margin, 0, out=work.rows("mask", *margin.shape, dtype=bool))
        slopes = xp.multiply(wrong, -1, out=work.rows("slopes", *margin.shape))
        margin *= slopes
        return margin, slopes


def make_margin(name: str) -> Margin:
    """Return the loss of this name; ``"log_loss"`` is logistic, one class against the rest."""
    kinds: dict[str, Callable[[], Margin]] = {
        "log_loss": LogMargin,
        "squared_hinge": SquaredHinge,
        "modified_huber": ModifiedHuber,
        "perceptron": Perceptron,
    }
    return kinds[name]()
