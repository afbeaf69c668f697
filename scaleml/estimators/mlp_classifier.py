"""scikit-learn's ``MLPClassifier``, trained in parallel."""

from __future__ import annotations

from typing import Any, ClassVar, final

import numpy as np
from sklearn import neural_network as sk
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import unique_labels

from scaleml.data.collections import is_collection
from scaleml.data.labels import as_text, refuse_one_class
from scaleml.estimators import lazy
from scaleml.estimators.base import EXTRAS
from scaleml.estimators.callbacks import told_of_both_ends, with_callbacks
from scaleml.estimators.first_call import all_or_nothing
from scaleml.estimators.label_targets import LabelTargets
from scaleml.estimators.perceptron import Perceptron


@final
class MLPClassifier(LabelTargets, Perceptron, sk.MLPClassifier):
    """Multi-layer perceptron for classes, trained in parallel.

    scikit-learn's ``MLPClassifier``: change the import, keep the code. Parameters, attributes and predictions are its own
    (this class inherits them), and so is the model that is trained in this process: to rounding the same for the same seed (see Notes).
    What follows is what differs.

    Parameters
    ----------
    hidden_layer_sizes, activation, alpha, learning_rate, learning_rate_init, power_t, max_iter, random_state, tol, warm_start, \
momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change
        As in scikit-learn.
    solver : {"adam", "sgd", "lbfgs"}
        ``"lbfgs"`` is scikit-learn's own, in this process.
    batch_size : int or "auto"
        The global batch, as in scikit-learn: ``"auto"`` is 200 rows, or all.
    shuffle : bool
        Rows are shuffled each epoch in this process, once on a cluster. False needs ``strategy="auto"``.
    verbose : bool
        Shows how the fit goes: live in a notebook or a terminal, else a line an epoch.
    max_fun : int
        Of ``"lbfgs"``: evaluations of the loss, at most.
    strategy : "auto" or Strategy
        ``"auto"`` trains data of up to 5e8 multiplications an epoch (values times outputs, or times weights: about
        0.3 s of one core) in this process, without a cluster, and more than that with ``AllReduce()``
        on the current Dask cluster, or on an embedded one; Dask collections always there. A strategy such as ``LocalSGD(8)``
        always trains on a cluster.
    workers : int, list of addresses or None
        Which workers of the cluster; None for all.
    optimizer : Optimizer, optional
        Instead of `solver` and its settings.
    class_weight : {"balanced"}, dict or None
        What the rows of each class weigh, as in scikit-learn's linear classifiers; its own perceptrons have no such parameter.

    Attributes
    ----------
    classes_, coefs_, intercepts_, n_features_in_, feature_names_in_, n_iter_, t_, loss_, loss_curve_, best_loss_, \
validation_scores_, best_validation_score_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.
    client : distributed.Client or None
        Set it to train on a certain cluster. A property, neither cloned nor pickled.

    Raises
    ------
    ValueError
        When training runs into infinity, or for a setting that only scikit-learn has.

    Notes
    -----
    In this process first weights, held-out rows, batches, steps, penalty, losses and the decision when to stop are scikit-learn's,
    also with weights, in ``partial_fit`` and after a warm start. What remains: rounding, which grows where training is chaotic; a
    batch whose rows all weigh nothing is passed over (scikit-learn: ZeroDivisionError); negative weights and ``momentum=1`` are
    refused; a warm start with `early_stopping` keeps the best model of all fits. On a cluster batches are others, and so is the
    penalty of an epoch's last, smaller batch: that of a full one.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from scaleml.neural_network import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPClassifier((20,), learning_rate_init=0.01, max_iter=100, tol=0.01, random_state=0).fit(X, y)
    >>> bool(clf.score(X, y) > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **sk.MLPClassifier._parameter_constraints,
        **EXTRAS,
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    def __init__(
        self,
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
        class_weight: Any = None,
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
        self.strategy = strategy
        self.workers = workers
        self.optimizer = optimizer
        self.class_weight = class_weight

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like or CSR matrix of shape (n_samples, n_features), Dask array or dataframe
        y : array-like or Dask collection of shape (n_samples,), or (n_samples, n_labels) of 0 and 1
            Labels of any kind; or, in this process's memory, columns of 0 and 1 for several labels a row.
        sample_weight : array-like or Dask collection of shape (n_samples,), optional

        Returns
        -------
        self
        """
        if self._is_left_to_scikit_learn(X):
            self._refuse_class_weight()
            with told_of_both_ends(self):
                return super().fit(X, *lazy.local(self, y, sample_weight))
        self._validate_params()
        self._check_settings(partial=False)
        going_on = self.warm_start and hasattr(self, "coefs_")
        if is_collection(X):
            with self._staged(X, y, sample_weight, reset=not going_on) as rows:
                self._open(
                    going_on, np.arange(rows.targets) if rows.found_labels is None else as_text(rows.found_labels)
                )
                whole = self._coded_there(rows)
                self._learn(whole, (X, y, sample_weight), self.max_iter, going_on, keep_state=False)
        else:
            X, y, sample_weight = self._checked(X, y, sample_weight, reset=not going_on)
            self._open(going_on, unique_labels(y))
            whole = self._coded(X, y, sample_weight)
            self._learn(whole, (X, y, sample_weight), self.max_iter, going_on, keep_state=False)
        self._warn()
        return self

    @with_callbacks
    @all_or_nothing
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Any:
        """Go on for one epoch over these rows.

        Parameters
        ----------
        X : array-like or CSR matrix of shape (n_samples, n_features), Dask array or dataframe
        y : array-like or Dask collection of shape (n_samples,), or (n_samples, n_labels) of 0 and 1
        sample_weight : array-like or Dask collection of shape (n_samples,), optional
        classes : array of shape (n_classes,), optional
            All labels that will ever come; needed in the first call.

        Returns
        -------
        self
        """
        self._validate_params()
        self._check_settings(partial=True)
        first = not hasattr(self, "coefs_")
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit: pass compute_class_weight('balanced', "
                "classes=classes, y=y) of a large enough sample as a dict"
            )
        if is_collection(X):
            with self._staged(X, y, sample_weight, reset=first) as rows:
                self._name_classes(first, classes)
                whole = self._coded_there(rows)
                self._learn(whole, (X, y, sample_weight), 1, not first, keep_state=True)
            return self
        X, y, sample_weight = self._checked(X, y, sample_weight, reset=first)
        self._name_classes(first, classes)
        whole = self._coded(X, y, sample_weight)
        self._learn(whole, (X, y, sample_weight), 1, not first, keep_state=True)
        return self

    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities of the classes, (n_samples, n_classes); of a Dask collection lazily."""
        return lazy.by_blocks(self, "predict_proba", X) if is_collection(X) else super().predict_proba(X)

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of the probabilities; of a Dask collection lazily."""
        return lazy.by_blocks(self, "predict_log_proba", X) if is_collection(X) else super().predict_log_proba(X)

    def _refuse_class_weight(self) -> None:
        if self.class_weight is not None:
            raise ValueError(
                f"class_weight={self.class_weight!r} with solver={self.solver!r}, which is scikit-learn's own and has none: use 'adam' or "
                "'sgd', or weigh rows with sample_weight"
            )

    def _open(self, going_on: bool, classes: Any) -> None:
        """Begin a fit to these classes."""
        if going_on and set(classes) != set(self.classes_):
            raise ValueError(
                f"warm_start can only be used where `y` has the same classes as in the previous call to fit. Previously got "
                f"{self.classes_}, `y` has {classes}"
            )
        refuse_one_class(classes)
        self.classes_ = classes
        if not going_on:
            self._first()

    def _name_classes(self, first: bool, classes: Any) -> None:
        """Set ``classes_`` in the first call of ``partial_fit``; raise where later ones differ."""
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if first:
            self.classes_ = np.unique(classes)
            self._first()
        elif classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {self.classes_!r}"
            )

    def _learn(self, whole: Any, given: tuple[Any, Any, Any], epochs: int, going_on: bool, *, keep_state: bool) -> None:
        begin = self._go_on(whole.dtype, keep_state) if going_on else None
        self._train(whole, epochs=epochs, begin=begin, given=given)
