"""scikit-learn's ``MLPRegressor``, trained in parallel."""

from __future__ import annotations

from typing import Any, ClassVar, final

from sklearn import neural_network as sk

from scaleml.data.collections import is_collection
from scaleml.estimators import lazy
from scaleml.estimators.base import EXTRAS, KINDS, column_of, inputs_of
from scaleml.estimators.callbacks import told_of_both_ends, with_callbacks
from scaleml.estimators.checked import told_of_text, validated
from scaleml.estimators.perceptron import Perceptron
from scaleml.estimators.staged import staged
from scaleml.estimators.weights import row_weights


@final
class MLPRegressor(Perceptron, sk.MLPRegressor):
    """Multi-layer perceptron for one or more numbers, trained in parallel.

    scikit-learn's ``MLPRegressor``: change the import, keep the code. Parameters, attributes and predictions are its own
    (this class inherits them); see `MLPClassifier` for what differs, and for the parameters that are not scikit-learn's.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}
        ``"poisson"`` is scikit-learn's own, in this process.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle, \
random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1, beta_2, \
epsilon, n_iter_no_change, max_fun, strategy, workers, optimizer
        See `MLPClassifier`.

    Attributes
    ----------
    coefs_, intercepts_, n_features_in_, feature_names_in_, n_iter_, t_, loss_, loss_curve_, best_loss_, \
validation_scores_, best_validation_score_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.
    client : distributed.Client or None
        Set it to train on a certain cluster. A property, neither cloned nor pickled.

    Raises
    ------
    ValueError
        When training runs into infinity, or for a setting that only scikit-learn has.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from scaleml.neural_network import MLPRegressor
    >>> X, y = make_regression(200, 5, random_state=0)
    >>> reg = MLPRegressor(hidden_layer_sizes=(20,), learning_rate_init=0.02, tol=0.01, random_state=0)
    >>> bool(reg.fit(X, y / 50).score(X, y / 50) > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {**sk.MLPRegressor._parameter_constraints, **EXTRAS}

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        strategy: Any = "auto",
        workers: Any = None,
        optimizer: Any = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
        )
        self.loss = loss
        self.strategy = strategy
        self.workers = workers
        self.optimizer = optimizer

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like or CSR matrix of shape (n_samples, n_features), Dask array or dataframe
        y : array-like or Dask collection of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like or Dask collection of shape (n_samples,), optional

        Returns
        -------
        self
        """
        if self._is_left_to_scikit_learn(X):
            with told_of_both_ends(self):
                return super().fit(X, *lazy.local(self, y, sample_weight))
        self._validate_params()
        self._check_settings(partial=False)
        going_on = self.warm_start and hasattr(self, "coefs_")
        if not going_on:
            self._first()
        self._learn(X, y, sample_weight, self.max_iter, going_on, keep_state=False)
        self._warn()
        return self

    @with_callbacks
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Go on for one epoch over these rows.

        Parameters
        ----------
        X : array-like or CSR matrix of shape (n_samples, n_features), Dask array or dataframe
        y : array-like or Dask collection of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like or Dask collection of shape (n_samples,), optional

        Returns
        -------
        self
        """
        if self._is_left_to_scikit_learn(X, partial=True):
            with told_of_both_ends(self):
                return super().partial_fit(X, *lazy.local(self, y, sample_weight))
        self._validate_params()
        self._check_settings(partial=True)
        going_on = hasattr(self, "coefs_")
        if not going_on:
            self._first()
        self._learn(X, y, sample_weight, 1, going_on, keep_state=True)
        return self

    def _learn(self, X: Any, y: Any, sample_weight: Any, epochs: int, going_on: bool, *, keep_state: bool) -> None:
        if is_collection(X):
            with staged(self, X, y, sample_weight, classifier=False, reset=not going_on) as rows:
                begin = self._go_on(rows.dtype, keep_state) if going_on else None
                self._train(rows.coded(None, None), epochs=epochs, begin=begin, given=(X, y, sample_weight))
            return
        whole = self._checked(X, y, sample_weight, reset=not going_on)
        begin = self._go_on(whole.x.dtype, keep_state) if going_on else None
        self._train(whole, epochs=epochs, begin=begin, given=(whole.x, whole.y, whole.weights))

    def _checked(self, X: Any, y: Any, sample_weight: Any, reset: bool) -> Any:
        """Return rows as inputs."""
        y, sample_weight = lazy.local(self, y, sample_weight)
        X, y = validated(self, X, y, accept_sparse="csr", dtype=KINDS, multi_output=True, y_numeric=True, reset=reset)
        with told_of_text(X, y):
            y = column_of(y).astype(X.dtype, copy=False)
        weights = row_weights(sample_weight, X)
        return inputs_of(X, y, weights, None, getattr(self, "feature_names_in_", None))

    def _inputs(self, X: Any, y: Any, sample_weight: Any) -> Any:
        """Check the rows of a first fit, forget what an earlier one has left, and return them as they are trained on."""
        self._first()
        return self._checked(X, y, sample_weight, reset=True)

    def _held_out(self, X: Any, y: Any, sample_weight: Any) -> Any:
        """Check rows to evaluate on, and return them so."""
        return self._checked(X, y, sample_weight, reset=False)

    def _staged_inputs(self, rows: Any) -> Any:
        """Return a staged collection as it is trained on by a first fit."""
        self._first()
        return rows.coded(None, None)
