"""Held-out results in words: the score with what it is and what knowing nothing would score, and whether the loss rises."""

from __future__ import annotations

import math

import numpy as np

from scaleml.telemetry.formatting import number
from scaleml.telemetry.overfitting import find_overfitting
from scaleml.telemetry.run_like import RUNNING, RunLike


def held_out_sentences(run: RunLike) -> list[str]:
    """Return what there is to say of the held-out rows of one run; nothing where none were evaluated."""
    found = run.history.evaluations
    if not len(found["loss"]):
        return []
    losses, scores, is_over = found["loss"], found["score"], run.state not in RUNNING
    rise, best = find_overfitting(run.history), best_before_the_end(losses)
    when = "" if best is None else " at the end" if is_over else " now"
    sentences = [score_sentence(run.score_name, float(scores[-1]), run.baseline_score, when)]
    if best is not None:
        score = float(scores[best])
        then = f", with {run.score_name} {number(score)}" if math.isfinite(score) else ""
        if rise is not None:
            sentences.append(f"{rise}; run.model is the model of then{then}.")
        elif is_over:
            sentences.append(
                f"The lowest held-out loss was {number(float(losses[best]))}, at evaluation {best} of {len(losses) - 1}: run.model is the "
                f"model of then{then}."
            )
    return [sentence for sentence in sentences if sentence]


def best_before_the_end(losses: np.ndarray) -> int | None:
    """Return which of the losses (n,) is the lowest; None where that is the last one, or not visibly lower.

    Examples
    --------
    >>> best_before_the_end(np.array([0.7, 0.3, 0.31])), best_before_the_end(np.array([0.7, 0.3, 0.2]))
    (1, None)
    """
    finite = np.where(np.isfinite(losses), losses, np.inf)
    best = int(finite.argmin())
    is_lower = np.isfinite(finite[best]) and number(float(finite[best])) != number(float(losses[-1]))
    return best if is_lower else None


def score_sentence(name: str, score: float, baseline: float | None, when: str = "") -> str:
    """Return the held-out score in words, beside the baseline's; ``when`` says of which evaluation, where that is a question.

    Examples
    --------
    >>> score_sentence("accuracy", 0.9737, 0.614)
    'Held-out accuracy 0.9737; always saying the largest class scores 0.614.'
    >>> score_sentence("R2", -0.02, 0.0)
    'Held-out R2 -0.02, no better than the mean of the targets, which scores 0.'
    """
    if not math.isfinite(score):
        return ""
    text = f"Held-out {name} {number(score)}{when}"
    if baseline is None or not math.isfinite(baseline):
        return f"{text}."
    what = "the mean of the targets" if name == "R2" else "always saying the largest class"
    if score <= baseline:
        return f"{text}, no better than {what}, which scores {number(baseline)}."
    return f"{text}; {what} scores {number(baseline)}."
