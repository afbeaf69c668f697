"""What alpha does to the boundary of a network, on three shapes of data."""

import numpy as np
from sklearn.datasets import make_circles, make_classification, make_moons
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

X, y = make_classification(n_features=2, n_redundant=0, n_informative=2, random_state=0, n_clusters_per_class=1)
X += 2 * np.random.RandomState(2).uniform(size=X.shape)
shapes = {
    "moons": make_moons(noise=0.3, random_state=0),
    "circles": make_circles(noise=0.2, factor=0.5, random_state=1),
    "lines": (X, y),
}

scores = {}
for alpha in (0.1, 1.0, 10.0):
    for name, (X, y) in shapes.items():
        X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, random_state=42)
        mlp = MLPClassifier((10, 10), alpha=alpha, max_iter=500, learning_rate_init=0.01, random_state=1)
        model = make_pipeline(StandardScaler(), mlp).fit(X_train, y_train)
        scores[f"{name}, alpha {alpha}"] = model.score(X_test, y_test)
