"""scikit-learn's ``SGDRegressor``, trained in parallel."""

from __future__ import annotations

from typing import Any, ClassVar, final

import numpy as np
from sklearn import linear_model as sk
from sklearn.model_selection import ShuffleSplit
from sklearn.utils.validation import validate_data

from scaleml.estimators.base import EXTRAS, KINDS, inputs_of, refuse_collections, weights_for
from scaleml.estimators.callbacks import with_callbacks
from scaleml.estimators.linear import Linear
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
        X : array-like or CSR matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        coef_init : array of shape (n_features,), optional
            Where to start.
        intercept_init : array of shape (1,), optional
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        self
        """
        self._validate_params()
        self._check_settings(partial=False)
        refuse_collections(X, y, classifier=False)
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=KINDS, order="C", y_numeric=True)
        if self.warm_start and getattr(self, "coef_", None) is not None:
            coef_init = self.coef_ if coef_init is None else coef_init
            intercept_init = self.intercept_ if intercept_init is None else intercept_init
        self.t_, self._end, self._columns = 1.0, None, None
        self._learn(X, y, sample_weight, self.max_iter, (coef_init, intercept_init))
        self._warn()
        return self

    @with_callbacks
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Go on for one epoch over these rows.

        Parameters
        ----------
        X : array-like or CSR matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        self
        """
        self._validate_params()
        self._check_settings(partial=True)
        refuse_collections(X, y, classifier=False)
        first = getattr(self, "coef_", None) is None
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=KINDS, order="C", y_numeric=True, reset=first)
        if first or not hasattr(self, "t_"):
            self.t_, self._columns = 1.0, None
        if self._columns is None:
            self._columns = Columns(X.shape[1])
        self._learn(X, y, sample_weight, 1, None)
        return self

    def _learn(self, X: Any, y: Any, sample_weight: Any, epochs: int, init: Any) -> None:
        """Train on checked data; ``init`` is where to start, or None to go on."""
        y = y.astype(X.dtype, copy=False)
        weights = weights_for(sample_weight, X)
        whole = inputs_of(X, y, weights, None)
        if init is None:
            begin = self._go_on(whole)
        else:
            begin = None if all(part is None for part in init) else self._from(init[0], init[1], whole)
        train, held = whole, None
        if self.early_stopping:
            splitter = ShuffleSplit(test_size=self.validation_fraction, random_state=self.random_state)
            rows, held_rows = next(splitter.split(np.zeros((len(y), 1))))
            train, held = inputs_of(X, y, weights, None, rows), inputs_of(X, y, weights, None, held_rows)
        self._train(train, held, epochs=epochs, begin=begin, given=(X, y, sample_weight))
        self.coef_ = self.coef_.ravel()
