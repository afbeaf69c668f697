"""The widest road between two clouds of points, and where it lies."""

import numpy as np
from sklearn.datasets import make_blobs
from sklearn.linear_model import SGDClassifier

scores = {}
X, y = make_blobs(n_samples=50, centers=2, random_state=0, cluster_std=0.60)
clf = SGDClassifier(loss="hinge", alpha=0.01, max_iter=200, random_state=0).fit(X, y)
scores["accuracy"] = clf.score(X, y)

xx, yy = np.meshgrid(np.linspace(-1, 5, 10), np.linspace(-1, 5, 10))
heights = clf.decision_function(np.c_[xx.ravel(), yy.ravel()]).reshape(xx.shape)
scores["both sides"] = float((heights > 0).any() and (heights < 0).any())
margins = np.where(y == 1, 1, -1) * clf.decision_function(X)
objective = np.maximum(0, 1 - margins).mean() + 0.005 * (clf.coef_**2).sum()
scores["objective"] = -objective
