"""All losses and penalties on one problem, and robust regression beside outliers."""

import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def mean_score(estimator, X_train, X_test, y_train, y_test):
    """Fit it with five seeds and return the mean of their scores."""
    models = [make_pipeline(StandardScaler(), clone(estimator).set_params(random_state=seed)) for seed in range(5)]
    return np.mean([model.fit(X_train, y_train).score(X_test, y_test) for model in models])


scores = {}
X, y = load_breast_cancer(return_X_y=True)
halves = train_test_split(X, y, random_state=0)
for loss in ("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron"):
    scores[loss] = mean_score(SGDClassifier(loss=loss), *halves)
for penalty in ("l1", "elasticnet", None):
    scores[f"penalty {penalty}"] = mean_score(SGDClassifier(loss="log_loss", penalty=penalty, alpha=0.01), *halves)

X, y = load_diabetes(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, (y - y.mean()) / y.std(), random_state=0)
y_train[::20] += 30  # somebody's thumb was on the scale
for loss, epsilon in {"huber": 0.5, "epsilon_insensitive": 0.1}.items():
    robust = SGDRegressor(loss=loss, epsilon=epsilon, eta0=0.02)
    scores[loss] = mean_score(robust, X_train, X_test, y_train, y_test)
