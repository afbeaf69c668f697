"""Headline: one run in one line, by what was reached: strategy, state, loss and score."""

from __future__ import annotations

import math

from scaleml.escaping import escape
from scaleml.telemetry.curves import loss_curve
from scaleml.telemetry.formatting import number, seconds
from scaleml.telemetry.held_out import best_before_the_end
from scaleml.telemetry.run_like import RUNNING, RunLike
from scaleml.telemetry.summary import measure


def standing(run: RunLike) -> str:
    """Return state, loss and score as far as they are known, and where `run.model` is of another evaluation than the last one, both.

    Such as ``"finished, held-out loss 0.12, accuracy 0.97"``, or ``"finished, at the end held-out loss 0.12, accuracy 0.97; run.model is of
    its best, 0.11, with accuracy 0.96"``.
    """
    curve, parts = loss_curve(run.history), [str(run.state)]
    if has_diverged(run):
        parts.append("but diverged")
    if not len(curve.loss):
        return ", ".join(parts)
    last = f"{curve.kind} loss {number(float(curve.loss[-1]))}{_scored(run, curve.score[-1], ', ')}"
    best = best_before_the_end(curve.loss)
    if best is None:
        return ", ".join([*parts, last])
    low = number(float(curve.loss[best]))
    if curve.kind != "held-out":
        return ", ".join([*parts, f"{last} (best {low})"])
    when, whose = ("now", "the best so far is") if run.state in RUNNING else ("at the end", "run.model is of its best,")
    return f"{', '.join([*parts, f'{when} {last}'])}; {whose} {low}{_scored(run, curve.score[best], ', with ')}"


def _scored(run: RunLike, score: float, before: str) -> str:
    return f"{before}{run.score_name} {number(float(score))}" if math.isfinite(score) else ""


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
