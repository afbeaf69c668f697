"""scikit-learn's linear models, trained in parallel."""

from scaleml.estimators.logistic_regression import LogisticRegression
from scaleml.estimators.ridge import Ridge
from scaleml.estimators.sgd_classifier import SGDClassifier
from scaleml.estimators.sgd_regressor import SGDRegressor

__all__ = ["LogisticRegression", "Ridge", "SGDClassifier", "SGDRegressor"]
