"""Headline: one run in one line, by what was reached: strategy, state, loss and score."""

from __future__ import annotations

import math

from scaleml.escaping import escape
from scaleml.telemetry.curves import loss_curve
from scaleml.telemetry.formatting import number, seconds
from scaleml.telemetry.run_like import RunLike
from scaleml.telemetry.summary import measure


def standing(run: RunLike) -> str:
    """Return state, loss and score as far as they are known: ``"finished, held-out loss 0.12, accuracy 0.97"``."""
    curve = loss_curve(run.history)
    parts = [str(run.state)]
    if len(curve.loss):
        loss, best = float(curve.loss[-1]), curve.best()
        parts.append(f"{curve.kind} loss {number(loss)}")
        if math.isfinite(best) and number(best) != number(loss):
            parts[-1] += f" (best {number(best)})"
        if math.isfinite(curve.score[-1]):
            parts.append(f"{run.score_name} {number(float(curve.score[-1]))}")
        if has_diverged(run):
            parts[0] += ", but diverged"
    return ", ".join(parts)


def headline_fragment(run: RunLike) -> str:
    """Return the line for a notebook's output."""
    time = f", trained for {seconds(float(run.train_seconds))}" if run.train_seconds else ""
    return f'<p style="font-size:1.1em;margin:0.3em 0"><strong>{escape(str(run.label))}</strong>: {escape(standing(run) + time)}</p>'


def divergence(run: RunLike, advice: str | None = None) -> str:
    """Return that a run's loss has ended far above where it began, and what to do, such as ``advice`` about its data; else nothing."""
    row = measure(run)[0]
    if not row.diverged:
        return ""
    if advice:
        return f"The run diverged, most likely by its data: {advice}."
    end = f"ended at {number(row.loss)}" if math.isfinite(row.loss) else "is no longer finite"
    return f"The run diverged: its {row.kind} loss was {number(row.first)} at first and {end}; try a smaller learning rate."


def has_diverged(run: RunLike) -> bool:
    """Return whether a run's loss is no longer finite, or well above where it started."""
    return measure(run)[0].diverged
