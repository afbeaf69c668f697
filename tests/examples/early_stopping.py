"""When to stop: after so many epochs, when the training loss no longer falls, or when the held-out score no longer rises."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.utils import shuffle

X, y = load_digits(return_X_y=True)
X, y = shuffle(X, (y > 4).astype(int), random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.5, random_state=0)

scores = {}
for name, rule in {
    "no stopping": {"tol": None, "max_iter": 15},
    "training loss": {"early_stopping": False, "n_iter_no_change": 3, "tol": 0.01},
    "validation score": {"early_stopping": True, "n_iter_no_change": 3, "tol": 0.0001, "validation_fraction": 0.2},
}.items():
    runs = [SGDClassifier(loss="log_loss", random_state=seed, **rule).fit(X_train, y_train) for seed in range(3)]
    scores[name] = np.mean([clf.score(X_test, y_test) for clf in runs])
