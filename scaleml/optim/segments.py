"""Segments: what an optimizer's parameter groups make of a flat vector, or of a slice of it."""

from __future__ import annotations

from collections.abc import Sequence

from scaleml.optim.base import Optimizer, Segment
from scaleml.optim.groups import Group, check_matched, settings_of

__all__ = ["segments_of"]


def segments_of(
    optimizer: Optimizer,
    named_parts: Sequence[tuple[str, slice]],
    own: slice | None = None,
    *,
    matrices: Sequence[tuple[int, int, int]] = (),
) -> tuple[Segment, ...]:
    """Return the segments of a vector of named parts for `Optimizer.apply`; nothing where all of it has the same settings.

    Parameters
    ----------
    optimizer : Optimizer
        With its groups.
    named_parts : sequence of (str, slice)
        The parameters' names and their parts of the vector: `named_parts_of` a model.
    own : slice, optional
        The part of the vector that the optimizer is applied to; all of it if not given. Segments are counted from its start.

    matrices : sequence of (int, int, int)
        Where in the vector what has more than one axis lies: `matrices_of` the model.

    Raises
    ------
    ValueError
        A pattern fits no parameter.

    Examples
    --------
    >>> from scaleml.optim import AdamW
    >>> parts = (("weight", slice(0, 6)), ("bias", slice(6, 8)))
    >>> [(part.start, part.stop, part.rule.weight_decay) for part in segments_of(AdamW(no_decay="bias"), parts)]
    [(0, 6, 0.01), (6, 8, 0.0)]
    >>> [(part.start, part.stop) for part in segments_of(AdamW(no_decay="bias"), parts, slice(4, 8))]
    [(0, 2), (2, 4)]
    """
    groups = optimizer.groups
    if optimizer.no_decay:
        groups = (Group(optimizer.no_decay, weight_decay=0.0), *groups)
    if not groups:
        return ()
    firsts = {first for first, _, _ in matrices}
    vectors = {name for name, part in named_parts if part.start not in firsts}
    check_matched(
        [pattern for group in groups for pattern in group.patterns], [name for name, _ in named_parts], vectors
    )
    rules: dict[float, Optimizer] = {}
    found: list[Segment] = []
    start, stop = (0, named_parts[-1][1].stop) if own is None else (own.start, own.stop)
    for name, part in named_parts:
        rate, decay = settings_of(groups, name, vectors)
        factor = 1.0 if rate is None else rate / optimizer.learning_rate
        decay = optimizer.weight_decay if decay is None else decay
        rule = rules.setdefault(decay, optimizer.with_decay(decay))
        segment = Segment(max(part.start, start) - start, min(part.stop, stop) - start, factor, rule)
        if segment.start >= segment.stop:
            continue
        if found and (found[-1].factor, found[-1].rule) == (factor, rule):
            segment = segment._replace(start=found.pop().start)
        found.append(segment)
    return tuple(found)
