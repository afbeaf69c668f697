"""Parameter groups of a run: which parts of a rank's slice of the vector the optimizer updates by settings of their own."""

from __future__ import annotations

from scaleml.models.flat_model import matrices_of, named_parts_of
from scaleml.optim import Segment, segments_of
from scaleml.runtime.plan import Plan


def group_segments(plan: Plan, own: slice | None = None) -> tuple[Segment, ...]:
    """Return the segments of a slice of the vector, or of all of it; see `segments_of`.

    Raises
    ------
    ValueError
        A pattern of the optimizer's groups fits none of the model's parameters.
    """
    model = plan.model
    return segments_of(plan.optimizer, named_parts_of(model), own, matrices=matrices_of(model))
