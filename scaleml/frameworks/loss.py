"""Loss: what the losses of all frameworks have in common: what they are for, and how what a function of the user's returns is summed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from scaleml.frameworks.objective import Link, Targets

__all__ = ["Loss", "Reduction", "reduction_of"]

Reduction = Literal["mean", "sum", "rows"]
"""What a function of the user's returns: one number, the mean or the sum over the rows, or one a row."""


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss whose sum over the rows has a gradient; frameworks add what their arrays need.

    Parameters
    ----------
    name : str
        In words, for errors.
    targets : {"classes", "labels", "numbers", "any"}
        What it is for.
    function : callable
        Of outputs and targets.
    link : {"softmax", "exp", "sigmoid"} or None
        Makes probabilities of outputs.
    settings : mapping
        Of the function.
    axis : int
        Of the classes in the outputs.
    reduction : {"mean", "sum", "rows"}
        What a function of the user's returns.
    """

    name: str
    targets: Targets
    function: Callable[..., Any]
    link: Link | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    axis: int = -1
    reduction: Reduction = "mean"

    @property
    def why_no_weights(self) -> str:
        """Why rows cannot weigh anything, with the remedy; "" where each has a loss of its own."""
        if self.targets != "any" or self.reduction == "rows":
            return ""
        return f"{self.name} returns one number for all rows: return a loss for each row, of shape (rows,), or leave sample_weight out"

    def _of_any(self, output: Any, target: Any, weights: Any) -> tuple[Any, Any]:
        """Return the weighted sum of what a function of the user's gives, and what it is to be divided by for the mean."""
        loss, rows = self.function(output, target), target.shape[0]
        if weights is None:
            return self._sum(
                loss
            ) if self.reduction == "rows" else loss * rows if self.reduction == "mean" else loss, float(rows)
        if self.why_no_weights:
            raise ValueError(f"rows have weights, but {self.why_no_weights}")
        return self._sum(loss * weights), self._sum(weights)

    @staticmethod
    def _sum(array: Any) -> Any:
        return array.sum()


def reduction_of(value: Callable[[slice], float], rows: int) -> Reduction | None:
    """Return whether the value for all rows is the mean or the sum of those for two parts of them; None where it is neither.

    Examples
    --------
    >>> losses = [1.0, 2.0, 6.0]
    >>> reduction_of(lambda part: sum(losses[part]), 3), reduction_of(lambda part: max(losses[part]), 3)
    ('sum', None)
    """
    whole, cuts = value(slice(0, rows)), (2, 1)  # twice, for once may be chance
    parts = [(cut, value(slice(0, cut)), value(slice(cut, rows))) for cut in cuts]

    def are(combine: Callable[[int, float, float], float]) -> bool:
        return all(math.isclose(whole, combine(*part), rel_tol=1e-3, abs_tol=1e-6) for part in parts)

    if are(lambda cut, first, second: (cut * first + (rows - cut) * second) / rows):
        return "mean"
    return "sum" if are(lambda _, first, second: first + second) else None
