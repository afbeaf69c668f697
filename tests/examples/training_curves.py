"""How the loss falls under different rules: constant and decaying rates, momentum with and without Nesterov's look, Adam."""

import warnings

from sklearn.datasets import load_iris, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import MinMaxScaler

rules = {
    "constant": {"solver": "sgd", "learning_rate": "constant", "momentum": 0, "learning_rate_init": 0.2},
    "momentum": {"solver": "sgd", "learning_rate": "constant", "momentum": 0.9, "nesterovs_momentum": False},
    "Nesterov": {"solver": "sgd", "learning_rate": "constant", "momentum": 0.9, "nesterovs_momentum": True},
    "decaying": {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0.9, "learning_rate_init": 0.2},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "momentum": 0.9, "learning_rate_init": 0.2},
    "adam": {"solver": "adam", "learning_rate_init": 0.01},
}

scores = {}
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    for name, (X, y) in {"iris": load_iris(return_X_y=True), "moons": make_moons(noise=0.3, random_state=0)}.items():
        X = MinMaxScaler().fit_transform(X)
        for rule, settings in rules.items():
            mlp = MLPClassifier(random_state=0, max_iter=60, **settings).fit(X, y)
            scores[f"{name}, {rule}"] = mlp.score(X, y)
            scores[f"{name}, {rule}, loss"] = -mlp.loss_curve_[-1]
    X, y = load_iris(return_X_y=True)
    reg = MLPRegressor(hidden_layer_sizes=(20,), random_state=0, max_iter=60, learning_rate_init=0.02).fit(
        X[:, :3], X[:, 3]
    )
    scores["regression"] = reg.score(X[:, :3], X[:, 3])
