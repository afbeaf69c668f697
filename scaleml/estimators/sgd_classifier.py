"""scikit-learn's ``SGDClassifier``, trained in parallel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, final

import numpy as np
from sklearn import linear_model as sk
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets

from scaleml.data.collections import is_collection
from scaleml.data.labels import as_text, encode_labels, refuse_unordered
from scaleml.estimators import lazy
from scaleml.estimators.base import EXTRAS, KINDS, rows_of
from scaleml.estimators.callbacks import with_callbacks
from scaleml.estimators.checked import refuse_no_weight_on_a_side, validated
from scaleml.estimators.class_targets import ClassTargets
from scaleml.estimators.first_call import all_or_nothing
from scaleml.estimators.linear import Linear
from scaleml.estimators.staged import staged
from scaleml.estimators.weights import row_weights
from scaleml.optim import Columns


@final
class SGDClassifier(ClassTargets, Linear, sk.SGDClassifier):
    """Linear classifiers (SVM, logistic regression and others) by stochastic gradient descent, in parallel.

    scikit-learn's ``SGDClassifier``: change the import, keep the code. This class inherits its parameters, attributes and
    predictions; what follows is what differs.

    Parameters
    ----------
    loss, penalty, alpha, l1_ratio, fit_intercept, max_iter, tol, epsilon, random_state, eta0, power_t, class_weight
        As in scikit-learn.
    shuffle : bool
        Rows are shuffled each epoch in this process while they are few, else once. False needs ``strategy="auto"``.
    verbose : int
        1 shows how the fit goes: live in a notebook or a terminal, else a line an epoch; above 1 always lines; 0 nothing. Of
        little data (see Notes), which takes no time, the end.
    n_jobs : int
        As in scikit-learn for little data (see Notes), else without effect: see `workers`.
    learning_rate : {"optimal", "constant", "invscaling", "adaptive", "pa1", "pa2"}
        Steps on batches are about the sum of the steps that scikit-learn would take on those rows, in each column no longer
        than what is stable there (see Notes). ``"pa1"`` and ``"pa2"`` are scikit-learn's own, in this process.
    early_stopping, validation_fraction, n_iter_no_change : bool, float, int
        As in scikit-learn; with several classes all are judged together, by the accuracy.
    warm_start : bool
    average : bool or int
        As in scikit-learn, to the next full batch.
    strategy : "auto" or Strategy
        ``"auto"`` trains little data by scikit-learn's own code (see Notes), data of up to 5e8 multiplications an epoch (values
        times outputs: about 0.3 s of one core) in this process, and more than that with ``AllReduce()`` on the current
        Dask cluster, or on an embedded one; Dask collections always there. A strategy always trains on a cluster.
    workers : int, list of addresses or None
        Which workers of the cluster; None for all.
    batch_size : int or "auto"
        The global batch; ``"auto"`` is 1/64 of the rows, at most 1024 (for numbers at least 16). A number has little data
        take steps of batches, too.
    optimizer : Optimizer, optional
        Instead of `learning_rate`, `eta0`, `power_t` and `average`: for example ``Adam(0.01)``, with its own steps a batch.

    Attributes
    ----------
    coef_, intercept_, classes_, n_features_in_, feature_names_in_, n_iter_, t_
        As in scikit-learn.
    client : distributed.Client or None
        Set it to train on a certain cluster. A property, neither cloned nor pickled.

    Raises
    ------
    ValueError
        When training runs into infinity, or for a setting that only scikit-learn has.

    Notes
    -----
    **Little data**, up to 2e6 of (values + 40 rows) times outputs an epoch, such as 20,000 rows of 50 columns, is trained by
    scikit-learn's own code: its results, to the bit, in its time. Not with `batch_size`, `optimizer`, a strategy or
    callbacks; these have steps of batches.

    A batch of B rows moves coordinate j by ``g_j / (1 / (B eta) + c_j)``, with scikit-learn's rate ``eta`` and a bound
    ``c_j`` measured from the data (see `scaleml.optim.RowSteps`), which tightens by a tenth of itself each epoch; what all rows
    have in common, the columns' means and the intercept, is bounded as one direction more. Columns need no scaling, and no
    rate diverges. The objective is scikit-learn's. Weights of rows are scaled to mean 1.

    **Dask.** X may be a Dask array (dense or CSR blocks) or dataframe, y and `sample_weight` may be Dask collections, too. ``fit`` and
    ``partial_fit`` train where they lie, also when they are larger than the workers' memory; ``predict`` and its like return Dask
    arrays, lazily, in X's chunks; ``score`` returns a number, computed in parallel. With `early_stopping` the rows that are held out
    are drawn within each partition, at random.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from scaleml.linear_model import SGDClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> bool(SGDClassifier(batch_size=8, random_state=0).fit(X, y).score(X, y) > 0.95)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {**sk.SGDClassifier._parameter_constraints, **EXTRAS}

    def __init__(
        self,
        loss: str = "hinge",
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
        n_jobs: int | None = None,
        random_state: Any = None,
        learning_rate: str = "optimal",
        eta0: float = 0.01,
        power_t: float = 0.5,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        class_weight: Any = None,
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
            n_jobs=n_jobs,
            random_state=random_state,
            learning_rate=learning_rate,
            eta0=eta0,
            power_t=power_t,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            class_weight=class_weight,
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
            Labels of any kind.
        coef_init : array of shape (n_classes, n_features), optional
            Where to start.
        intercept_init : array of shape (n_classes,), optional
        sample_weight : array-like or Dask collection of shape (n_samples,), optional

        Returns
        -------
        self
        """
        if not is_collection(X):
            y, sample_weight = lazy.local(self, y, sample_weight)
            refuse_unordered(y)
        if self._is_left_to_scikit_learn(X, y):
            with self._left_to_scikit_learn(X, y, self.max_iter):
                return super().fit(X, y, coef_init, intercept_init, sample_weight)
        self._validate_params()
        self._check_settings(partial=False)
        if is_collection(X):
            with staged(self, X, y, sample_weight, classifier=True, reset=True) as rows:
                init = self._initial(coef_init, intercept_init)
                self.classes_ = as_text(rows.found_labels)  # type: ignore[arg-type]  # a classifier's
                self._learn_staged(rows, self.max_iter, init, (X, y, sample_weight))
        else:
            X, y, classes = self._checked(X, y)
            init = self._initial(coef_init, intercept_init)
            self.classes_ = classes
            self._learn(X, y, sample_weight, self.max_iter, init)
        self._warn()
        return self

    @with_callbacks
    @all_or_nothing
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """Go on for one epoch over these rows.

        Parameters
        ----------
        X : array-like or CSR matrix of shape (n_samples, n_features), Dask array or dataframe
        y : array-like or Dask collection of shape (n_samples,)
        classes : array of shape (n_classes,), optional
            All labels that will ever come; needed in the first call.
        sample_weight : array-like or Dask collection of shape (n_samples,), optional

        Returns
        -------
        self
        """
        if not is_collection(X):
            y, sample_weight = lazy.local(self, y, sample_weight)
            refuse_unordered(y)
        if self._is_left_to_scikit_learn(X, y, getattr(self, "classes_", classes)):
            try:
                with self._left_to_scikit_learn(X, y, 1):
                    return super().partial_fit(X, y, classes, sample_weight)
            except ValueError as error:
                if "valid labels" in str(error):  # which it does not name
                    encode_labels(as_text(np.asarray(y)), self.classes_)
                raise
        self._validate_params()
        self._check_settings(partial=True)
        first = not hasattr(self, "classes_")
        if first and self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit: pass compute_class_weight('balanced', "
                "classes=classes, y=y) of a large enough sample as a dict"
            )
        if is_collection(X):
            with staged(self, X, y, sample_weight, classifier=True, reset=first) as rows:
                self._open(first, classes)
                self._learn_staged(rows, 1, None, (X, y, sample_weight))
        else:
            X, y = validated(self, X, y, accept_sparse="csr", dtype=KINDS, order="C", reset=first)
            check_classification_targets(y)
            self._open(first, classes)
            self._learn(X, y, sample_weight, 1, None)
        return self

    def decision_function(self, X: Any) -> Any:
        """Return the scores of the rows of X: (n_samples,), or (n_samples, n_classes); of a Dask collection lazily."""
        return lazy.by_blocks(self, "decision_function", X) if is_collection(X) else super().decision_function(X)

    @available_if(lambda self: self._check_proba())  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities of the classes, (n_samples, n_classes); of a Dask collection lazily."""
        return lazy.by_blocks(self, "predict_proba", X) if is_collection(X) else super().predict_proba(X)

    @available_if(lambda self: self._check_proba())  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of the probabilities; of a Dask collection lazily."""
        return lazy.by_blocks(self, "predict_log_proba", X) if is_collection(X) else super().predict_log_proba(X)

    def _open(self, first: bool, classes: Any) -> None:
        """Have what calls of ``partial_fit`` share."""
        _check_classes(self, classes)
        if first or not hasattr(self, "t_"):
            self.t_, self._columns = 1.0, None
        if self._columns is None:
            self._columns = Columns(self.n_features_in_)

    def _learn_staged(self, rows: Any, epochs: int, init: Any, given: tuple[Any, Any, Any]) -> None:
        """Train on a staged collection; see `_learn`."""
        whole = self._coded_there(rows)
        self._train(whole, None, epochs=epochs, begin=self._begin(whole, init), given=given)

    def _learn(self, X: Any, y: Any, sample_weight: Any, epochs: int, init: Any) -> None:
        """Train on checked data; ``init`` is where to start, or None to go on."""
        whole = self._coded(X, y, sample_weight)
        begin = self._begin(whole, init)
        train, held = whole, None
        if self.early_stopping:
            splitter = StratifiedShuffleSplit(test_size=self.validation_fraction, random_state=self.random_state)
            rows, held_rows = next(splitter.split(np.zeros((len(y), 1)), y))
            # Judged as scikit-learn does: by the weights of the rows, without those of their classes.
            plain = replace(whole, weights=row_weights(sample_weight, X, scaled=True))
            train, held = rows_of(whole, rows), rows_of(plain, held_rows)
            refuse_no_weight_on_a_side(train, held)
        self._train(train, held, epochs=epochs, begin=begin, given=(X, y, sample_weight))


def _check_classes(estimator: Any, classes: Any) -> None:
    """Set ``classes_`` in the first call of ``partial_fit``; raise where later ones differ."""
    known = getattr(estimator, "classes_", None)
    if known is None:
        if classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        estimator.classes_ = np.unique(classes)
    elif classes is not None and not np.array_equal(known, np.unique(classes)):
        raise ValueError(f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {known!r}")
