"""scikit-learn's ``SGDClassifier`` and ``SGDRegressor``, trained in parallel."""

from scaleml.estimators.sgd_classifier import SGDClassifier
from scaleml.estimators.sgd_regressor import SGDRegressor

__all__ = ["SGDClassifier", "SGDRegressor"]
