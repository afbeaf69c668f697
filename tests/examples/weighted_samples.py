"""Rows that count more pull the line towards themselves."""

import numpy as np
from sklearn.linear_model import SGDClassifier

random = np.random.RandomState(0)
X = random.randn(20, 2) + np.repeat([1, 0], 10)[:, None]
y = np.array([1] * 10 + [-1] * 10)
weights = 100 * np.abs(random.randn(20))
weights[:10] *= 10

scores = {}
for name, sample_weight in {"plain": None, "weighted": weights}.items():
    runs = [
        SGDClassifier(alpha=0.01, max_iter=100, random_state=s).fit(X, y, sample_weight=sample_weight) for s in range(6)
    ]
    scores[name] = np.mean([clf.score(X, y, sample_weight=sample_weight) for clf in runs])
    scores[f"{name}, the heavy class"] = np.mean([clf.score(X[:10], y[:10]) for clf in runs])
