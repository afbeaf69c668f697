"""Scoring: what a user has said held-out rows should be scored by, checked; and what a model that has learnt nothing would score."""

from __future__ import annotations

import inspect
from typing import Any, cast

import numpy as np

from scaleml.arrays import Array
from scaleml.data.class_weights import ClassTally
from scaleml.models import Signature
from scaleml.models.flat_model import FlatModel, Scoring, score_name_of
from scaleml.runtime.held_out_score import Method, Scorer, ScoreRule, answer


def check_scoring(scoring: object) -> None:
    """Raise unless it is the name of one of scikit-learn's scorers, a callable scorer, or None.

    scikit-learn is loaded here, in the client, and only where there is something to check.
    """
    if scoring is None or callable(scoring):
        return
    if not isinstance(scoring, str):
        raise TypeError(
            f"scoring={scoring!r}: must be one of scikit-learn's scorers such as 'balanced_accuracy', or a function scorer(estimator, X, y)"
        )
    from sklearn.metrics import get_scorer_names

    from scaleml.checks import guess

    names = get_scorer_names()
    if scoring not in names:
        some = "accuracy, balanced_accuracy, f1_macro, roc_auc, neg_log_loss, r2"
        raise ValueError(
            f"scoring={scoring!r} is none of scikit-learn's scorers.{guess(scoring, names)} Some: {some}; sklearn.metrics."
            "get_scorer_names() has all"
        )


def score_rule(
    scoring: str | Scorer | None, network: FlatModel, classes: Array | None, signature: Signature
) -> ScoreRule | None:
    """Return how ranks score held-out rows; None for the model's own score, also by its name.

    Raises
    ------
    ValueError, TypeError
        Where the scorer asks for what the model does not know, such as the probabilities of a hinge loss.
    """
    if scoring is None or (isinstance(scoring, str) and _name_of(scoring) == score_name_of(network)):
        return None  # what the ranks know how to compute anyway
    from sklearn.metrics import get_scorer

    method = _method_of(get_scorer(scoring), network)
    if method is not None:
        answer(network, np.zeros(network.size, network.dtype), signature.no_rows(), method)
    return ScoreRule(scoring, _name_of(scoring), method, classes, signature.row is not None)


def score_name(rule: ScoreRule | None, network: FlatModel) -> str:
    """Return what the score of a run is called."""
    return score_name_of(network) if rule is None else rule.name


def baseline_score(
    rule: ScoreRule | None, network: FlatModel, classes: Array | None, tally: ClassTally | None
) -> float | None:
    """Return the held-out score of always saying the class that most rows to train on have, of R squared that of the mean: 0.

    None where it is not known: without held-out rows, and for scorers that look at rows, or at numbers.
    """
    if rule is None:
        if classes is None:
            return 0.0 if score_name_of(network) == "R2" else None
        return None if tally is None else tally.largest_share
    if classes is None:
        return 0.0 if rule.scorer == "r2" else None
    if tally is None or tally.held is None or rule.method is None:
        return None
    return _score_of_the_largest(rule, classes, tally)


def _score_of_the_largest(rule: ScoreRule, classes: Array, tally: ClassTally) -> float | None:
    """Have the scorer judge one row of each class, as heavy as the class."""
    from sklearn.dummy import DummyClassifier
    from sklearn.metrics import get_scorer

    scorer: Any = get_scorer(rule.scorer)
    assert tally.held is not None
    there = np.flatnonzero(tally.held)
    rows, metric = np.zeros((len(classes), 1)), getattr(scorer, "_score_func", None)
    if metric is None or "sample_weight" not in inspect.signature(metric).parameters:
        return None
    dummy = DummyClassifier(strategy="prior").fit(rows, classes, sample_weight=tally.counts)
    try:
        value = float(scorer(dummy, rows[there], classes[there], sample_weight=tally.held[there]))
    except (ValueError, TypeError):  # a metric that needs all classes among the rows, say
        return None
    return value if np.isfinite(value) else None


def _method_of(scorer: Any, network: FlatModel) -> Method | None:
    """Return which one method of an estimator a scorer asks for: the first of those that the model has."""
    asked = getattr(scorer, "_response_method", None)
    if asked is None:
        return None
    for method in (asked,) if isinstance(asked, str) else asked:
        if method != "decision_function" or isinstance(network, Scoring):
            return cast(Method, method)
    return None


def _name_of(scoring: str | Scorer) -> str:
    if isinstance(scoring, str):
        return "R2" if scoring == "r2" else scoring
    metric = getattr(scoring, "_score_func", None)
    if metric is not None:
        return ("neg_" if getattr(scoring, "_sign", 1) < 0 else "") + metric.__name__.removesuffix("_score")
    return str(getattr(scoring, "__name__", type(scoring).__name__))
