"""scikit-learn's ``SGDRegressor``, trained in parallel."""

from __future__ import annotations

from typing import Any, ClassVar, final

import numpy as np
from sklearn import linear_model as sk
from sklearn.model_selection import ShuffleSplit

from scaleml.data.collections import is_collection
from scaleml.estimators import lazy
from scaleml.estimators.base import EXTRAS, KINDS, inputs_of, rows_of
from scaleml.estimators.callbacks import with_callbacks
from scaleml.estimators.checked import refuse_no_weight_on_a_side, validated
from scaleml.estimators.linear import Linear
from scaleml.estimators.staged import staged
from scaleml.estimators.weights import row_weights
from scaleml.optim import Columns


@final
class SGDRegressor(Linear, sk.SGDRegressor):
    """Linear regression by stochastic gradient descent, in parallel.

    scikit-learn's ``SGDRegressor``: change the import, keep the code. Parameters, attributes and predictions are its own
    (this class inherits them); see `SGDClassifier` for what differs, and for the parameters that are not scikit-learn's.

    Parameters
    ----------
    loss, penalty, alpha, l1_ratio, fit_intercept, max_iter, tol, shuffle, verbose, epsilon, random_state, learning_rate, \
eta0, power_t, early_stopping, validation_fraction, n_iter_no_change, warm_start, average
        As in scikit-learn.
    strategy, workers, batch_size, optimizer
        See `SGDClassifier`.

    Attributes
    ----------
    coef_, intercept_, n_features_in_, feature_names_in_, n_iter_, t_
        As in scikit-learn.
    client : distributed.Client or None
        Set it to train on a certain cluster. A property, neither cloned nor pickled.

    Raises
    ------
    ValueError
        When training runs into infinity, or for a setting that only scikit-learn has.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from scaleml.linear_model import SGDRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> bool(SGDRegressor(eta0=0.1, random_state=0).fit(X, y).score(X, y) > 0.4)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {**sk.SGDRegressor._parameter_constraints, **EXTRAS}

    def __init__(
        self,
        loss: str = "squared_error",
        *,
        penalty: str | None = "l2",
        alpha: float = 0.0001,
        l1_ratio: float | None = 0.15,
        fit_intercept: bool = True,
        max_iter: int = 1000,
        tol: float | None = 1e-3,
        shuffle: bool = True,
        verbose: int = 0,
        epsilon: float = 0.1,
        random_state: Any = None,
        learning_rate: str = "invscaling",
        eta0: float = 0.01,
        power_t: float = 0.25,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        warm_start: bool = False,
        average: bool | int = False,
        strategy: Any = "auto",
        workers: Any = None,
        batch_size: int | str = "auto",
        optimizer: Any = None,
    ) -> None:
        super().__init__(
            loss=loss,
            penalty=penalty,
            alpha=alpha,
            l1_ratio=l1_ratio,
            fit_intercept=fit_intercept,
            max_iter=max_iter,
            tol=tol,
            shuffle=shuffle,
            verbose=verbose,
            epsilon=epsilon,
            random_state=random_state,
            learning_rate=learning_rate,
            eta0=eta0,
            power_t=power_t,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            warm_start=warm_start,
            average=average,
        )
        self.strategy = strategy
        self.workers = workers
        self.batch_size = batch_size
        self.optimizer = optimizer

    @with_callbacks
    def fit(self, X: Any, y: Any, coef_init: Any = None, intercept_init: Any = None, sample_weight: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like or CSR matrix of shape (n_samples, n_features), Dask array or dataframe
        y : array-like or Dask collection of shape (n_samples,)
        coef_init : array of shape (n_features,), optional
            Where to start.
        intercept_init : array of shape (1,), optional
        sample_weight : array-like or Dask collection of shape (n_samples,), optional

        Returns
        -------
        self
        """
        if not is_collection(X):
            y, sample_weight = lazy.local(self, y, sample_weight)
        if self._is_left_to_scikit_learn(X, y):
            with self._left_to_scikit_learn(X, y, self.max_iter):
                return super().fit(X, y, coef_init, intercept_init, sample_weight)
        self._validate_params()
        self._check_settings(partial=False)
        if is_collection(X):
            with staged(self, X, y, sample_weight, classifier=False, reset=True) as rows:
                init = self._initial(coef_init, intercept_init)
                self._learn_staged(rows, self.max_iter, init, (X, y, sample_weight))
        else:
            X, y = validated(self, X, y, accept_sparse="csr", dtype=KINDS, order="C", y_numeric=True)
            self._learn(X, y, sample_weight, self.max_iter, self._initial(coef_init, intercept_init))
        self._warn()
        return self

    @with_callbacks
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Go on for one epoch over these rows.

        Parameters
        ----------
        X : array-like or CSR matrix of shape (n_samples, n_features), Dask array or dataframe
        y : array-like or Dask collection of shape (n_samples,)
        sample_weight : array-like or Dask collection of shape (n_samples,), optional

        Returns
        -------
        self
        """
        if not is_collection(X):
            y, sample_weight = lazy.local(self, y, sample_weight)
        if self._is_left_to_scikit_learn(X, y):
            with self._left_to_scikit_learn(X, y, 1):
                return super().partial_fit(X, y, sample_weight)
        self._validate_params()
        self._check_settings(partial=True)
        first = getattr(self, "coef_", None) is None
        if is_collection(X):
            with staged(self, X, y, sample_weight, classifier=False, reset=first) as rows:
                self._open(first)
                self._learn_staged(rows, 1, None, (X, y, sample_weight))
        else:
            X, y = validated(self, X, y, accept_sparse="csr", dtype=KINDS, order="C", y_numeric=True, reset=first)
            self._open(first)
            self._learn(X, y, sample_weight, 1, None)
        return self

    def _open(self, first: bool) -> None:
        """Have what calls of ``partial_fit`` share."""
        if first or not hasattr(self, "t_"):
            self.t_, self._columns = 1.0, None
        if self._columns is None:
            self._columns = Columns(self.n_features_in_)

    def _take(self, outcome: Any, layout: Any, rows: int) -> None:
        super()._take(outcome, layout, rows)
        self._flatten()

    def _flatten(self) -> None:
        """Make coefficients (n_features,), as scikit-learn's regressors have them."""
        for name in ("coef_", "_standard_coef", "_average_coef"):
            if getattr(self, name, None) is not None:
                setattr(self, name, getattr(self, name).ravel())

    def _learn_staged(self, rows: Any, epochs: int, init: Any, given: tuple[Any, Any, Any]) -> None:
        """Train on a staged collection; see `_learn`."""
        whole = self._coded_there(rows)
        self._train(whole, None, epochs=epochs, begin=self._begin(whole, init), given=given)

    def _coded_there(self, rows: Any) -> Any:
        """Return a staged collection as inputs."""
        if rows.targets > 1:
            raise ValueError(f"y has {rows.targets} columns, but this estimator learns one target: pass one of them")
        counts, mass = rows.tally(None)
        factors = counts[0] / float(mass[0]) if rows.is_weighted else None
        return rows.coded(None, None, None, factors)

    def _learn(self, X: Any, y: Any, sample_weight: Any, epochs: int, init: Any) -> None:
        """Train on checked data; ``init`` is where to start, or None to go on."""
        y = y.astype(X.dtype, copy=False)
        weights = row_weights(sample_weight, X, scaled=True)
        whole = inputs_of(X, y, weights, None, getattr(self, "feature_names_in_", None))
        begin = self._begin(whole, init)
        train, held = whole, None
        if self.early_stopping:
            splitter = ShuffleSplit(test_size=self.validation_fraction, random_state=self.random_state)
            rows, held_rows = next(splitter.split(np.zeros((len(y), 1))))
            train, held = rows_of(whole, rows), rows_of(whole, held_rows)
            refuse_no_weight_on_a_side(train, held)
        self._train(train, held, epochs=epochs, begin=begin, given=(X, y, sample_weight))

    def _inputs(self, X: Any, y: Any, sample_weight: Any) -> Any:
        """Check the rows of a first fit, forget what an earlier one has left, and return them as they are trained on."""
        X, y = validated(self, X, y, accept_sparse="csr", dtype=KINDS, order="C", y_numeric=True)
        self._initial(None, None)
        return inputs_of(X, y.astype(X.dtype, copy=False), row_weights(sample_weight, X, scaled=True), None)

    def _held_out(self, X: Any, y: Any, sample_weight: Any) -> Any:
        """Check rows to evaluate on, and return them so."""
        X, y = validated(self, X, y, accept_sparse="csr", dtype=KINDS, order="C", y_numeric=True, reset=False)
        return inputs_of(X, y.astype(X.dtype, copy=False), row_weights(sample_weight, X, scaled=True), None)

    def _staged_inputs(self, rows: Any) -> Any:
        """Return a staged collection as it is trained on by a first fit."""
        self._initial(None, None)
        return self._coded_there(rows)
