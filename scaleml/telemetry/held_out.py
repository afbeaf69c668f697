"""Held-out results in words: the score with what it is and what knowing nothing would score, and whether the loss rises."""

from __future__ import annotations

import math

import numpy as np

from scaleml.telemetry.formatting import number
from scaleml.telemetry.overfitting import find_overfitting
from scaleml.telemetry.run_like import RunLike


def held_out_sentences(run: RunLike) -> list[str]:
    """Return what there is to say of the held-out rows of one run; nothing where none were evaluated."""
    found = run.history.evaluations
    if not len(found["loss"]):
        return []
    sentences = [score_sentence(run.score_name, float(found["score"][-1]), run.baseline_score)]
    rise = find_overfitting(run.history)
    if rise is not None:
        sentences.append(f"{rise}; run.model is the model of then.")
    elif run.state not in ("starting", "running", "paused", "recovering"):
        sentences.append(_best_sentence(found["loss"]))
    return [sentence for sentence in sentences if sentence]


def score_sentence(name: str, score: float, baseline: float | None) -> str:
    """Return the held-out score in words, beside the baseline's.

    Examples
    --------
    >>> score_sentence("accuracy", 0.9737, 0.614)
    'Held-out accuracy 0.9737; always saying the largest class scores 0.614.'
    >>> score_sentence("R2", -0.02, 0.0)
    'Held-out R2 -0.02, no better than the mean of the targets, which scores 0.'
    """
    if not math.isfinite(score):
        return ""
    text = f"Held-out {name} {number(score)}"
    if baseline is None or not math.isfinite(baseline):
        return f"{text}."
    what = "the mean of the targets" if name == "R2" else "always saying the largest class"
    if score <= baseline:
        return f"{text}, no better than {what}, which scores {number(baseline)}."
    return f"{text}; {what} scores {number(baseline)}."


def _best_sentence(losses: np.ndarray) -> str:
    """Say where the lowest loss was, if that was not at the end and is visibly lower."""
    finite = np.where(np.isfinite(losses), losses, np.inf)
    best = int(finite.argmin())
    if not np.isfinite(finite[best]) or number(float(finite[best])) == number(float(losses[-1])):
        return ""
    return (
        f"The lowest held-out loss was {number(float(finite[best]))}, at evaluation {best} of {len(losses) - 1}: run.model is the "
        "model of then."
    )
