"""A network reads digits after a few epochs; its first layer looks for strokes."""

import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0, test_size=0.7)
mlp = MLPClassifier((40,), max_iter=8, alpha=1e-4, solver="sgd", random_state=1, learning_rate_init=0.2)
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    mlp.fit(X_train, y_train)

scores = {"training": mlp.score(X_train, y_train), "test": mlp.score(X_test, y_test)}
strokes = mlp.coefs_[0].T.reshape(-1, 8, 8)
scores["loss"] = -mlp.loss_
scores["strokes are not flat"] = float(np.ptp(strokes, axis=(1, 2)).min() > 0)
