"""scikit-learn's ``MLPClassifier`` and ``MLPRegressor``, trained in parallel."""

from scaleml.estimators.mlp_classifier import MLPClassifier
from scaleml.estimators.mlp_regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
