"""scikit-learn's own checks of an estimator."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from scaleml.linear_model import LogisticRegression, Ridge, SGDClassifier, SGDRegressor
from scaleml.neural_network import MLPClassifier, MLPRegressor

# Every check that is expected to fail, and why.
WEIGHTS = dict.fromkeys(
    ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"),
    "a row of weight 2 is no two rows: it comes once, in one batch; scikit-learn's SGD fails it, too",
)
NO_ITERATIONS = {
    "check_non_transformer_estimators_n_iter": "a direct solver has no n_iter_, as in scikit-learn; its own tests take solver='sag'"
}
EXPECTED: dict[str, dict[str, str]] = {"SGDClassifier": WEIGHTS, "SGDRegressor": WEIGHTS, "Ridge": NO_ITERATIONS}

ESTIMATORS = [
    SGDClassifier(max_iter=50),
    SGDRegressor(max_iter=50),
    MLPClassifier(max_iter=100),
    MLPRegressor(max_iter=100),
    LogisticRegression(max_iter=30),
    Ridge(),
]


def expected(estimator):
    return EXPECTED.get(type(estimator).__name__, {})


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected)
def test_scikit_learns_checks(estimator, check):
    check(estimator)
