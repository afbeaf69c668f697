"""scikit-learn's ``LogisticRegression``, trained in parallel: L-BFGS over all-reduce."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, ClassVar, Final, final

import numpy as np
from sklearn import linear_model as sk
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight

from scaleml.data.collections import Table, is_collection
from scaleml.data.labels import as_text, refuse_one_class
from scaleml.data.source import outputs_of
from scaleml.estimators import all_rows, lazy
from scaleml.estimators.base import EXTRAS, KINDS, inputs_of
from scaleml.estimators.callbacks import told, told_of_both_ends, with_callbacks
from scaleml.estimators.checked import validated
from scaleml.estimators.coefficients import CoefficientLayout
from scaleml.estimators.linear import coded
from scaleml.estimators.staged import stage
from scaleml.estimators.warned import warn
from scaleml.models import LinearModel
from scaleml.optim import LBFGS
from scaleml.optim.lbfgs import GRADIENT, LOSS, REASONS
from scaleml.runtime.train_state import TrainState
from scaleml.telemetry.fitting import Fitting

_DEFAULTS: Final = {name: one.default for name, one in signature(sk.LogisticRegression.__init__).parameters.items()}
"""scikit-learn's own, which change with its versions: `penalty` and `l1_ratio` do."""


@final
class LogisticRegression(all_rows.AllRows, sk.LogisticRegression):
    """Logistic regression of two classes or several (multinomial), by L-BFGS over all-reduce.

    scikit-learn's ``LogisticRegression``: change the import, keep the code. This class inherits its parameters, attributes and
    predictions; what follows is what differs.

    Parameters
    ----------
    penalty, C, l1_ratio, fit_intercept, class_weight, tol, max_iter, warm_start
        As in scikit-learn: the objective is ``C * sum of the losses + |coef|^2 / 2``, ``C=np.inf`` has no penalty. An L1 part
        (`l1_ratio` above 0) needs a solver of scikit-learn's.
    solver : str
        ``"lbfgs"`` is trained by ranks. All others (``"liblinear"``, ``"newton-cg"``, ``"newton-cholesky"``, ``"sag"``, ``"saga"``) are
        scikit-learn's own code, in this process, on data that lies here.
    dual, intercept_scaling, random_state : of scikit-learn's other solvers
    verbose : int
        1 shows how the fit goes: live in a notebook or a terminal, else a line an evaluation; above 1 always lines; 0 nothing.
    n_jobs : None
        Without effect: see `workers`.
    strategy : "auto" or Strategy
        ``"auto"`` trains data of up to 5e7 values times outputs in this process, by scikit-learn's own code: its results to the
        bit. More than that, and Dask collections always, with ``AllReduce()`` on the current Dask cluster, or on an embedded
        one. Otherwise ``AllReduce(...)`` without compression, or ``Serial()``: always on a cluster.
    workers : int, list of addresses or None
        Which workers of the cluster; None for all.

    Attributes
    ----------
    coef_, intercept_, classes_, n_features_in_, feature_names_in_, n_iter_
        As in scikit-learn.
    client : distributed.Client or None
        Set it to train on a certain cluster. A property, neither cloned nor pickled.

    Raises
    ------
    ValueError
        For settings and data that scikit-learn refuses, and for a solver that ranks lack on data that lies on workers.

    Notes
    -----
    On a cluster each rank computes loss and gradient of the rows that it has, reading them once an evaluation; these are summed over the
    ranks, and every rank takes the same step: `scaleml.optim.LBFGS`, the same optimizer from the same start with the same rules when to
    stop as scikit-learn's. What differs is the order of sums. Where the problem is well posed (scaled columns, converged before
    `max_iter`), coefficients agree far beyond `tol`; on columns of unlike scales rounding grows from one iteration to the next, here
    as between two orders of the rows in scikit-learn itself.

    **Dask.** X may be a Dask array (dense or CSR blocks) or dataframe, y and `sample_weight` may be Dask collections, too: computed
    together, once. ``predict`` and its like return Dask arrays, lazily, in X's chunks; ``score`` returns a number.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.preprocessing import scale
    >>> from scaleml.linear_model import LogisticRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> bool(LogisticRegression().fit(scale(X), y).score(scale(X), y) > 0.98)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **sk.LogisticRegression._parameter_constraints,
        "strategy": EXTRAS["strategy"],
        "workers": EXTRAS["workers"],
    }

    def __init__(
        self,
        penalty: Any = _DEFAULTS["penalty"],
        *,
        C: float = 1.0,
        l1_ratio: float | None = _DEFAULTS["l1_ratio"],
        dual: bool = False,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1,
        class_weight: Any = None,
        random_state: Any = None,
        solver: str = "lbfgs",
        max_iter: int = 100,
        verbose: int = 0,
        warm_start: bool = False,
        n_jobs: int | None = None,
        strategy: Any = "auto",
        workers: Any = None,
    ) -> None:
        super().__init__(
            penalty=penalty,
            C=C,
            l1_ratio=l1_ratio,
            dual=dual,
            tol=tol,
            fit_intercept=fit_intercept,
            intercept_scaling=intercept_scaling,
            class_weight=class_weight,
            random_state=random_state,
            solver=solver,
            max_iter=max_iter,
            verbose=verbose,
            warm_start=warm_start,
            n_jobs=n_jobs,
        )
        self.strategy = strategy
        self.workers = workers

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like or CSR matrix of shape (n_samples, n_features), Dask array or dataframe
        y : array-like or Dask collection of shape (n_samples,)
            Labels of any kind.
        sample_weight : array-like or Dask collection of shape (n_samples,), optional

        Returns
        -------
        self
        """
        if not is_collection(X):
            y, sample_weight = lazy.local(self, y, sample_weight)
            if self.strategy == "auto" and self._is_little(X, y):
                with told_of_both_ends(self), self._shown(X, y, sample_weight):
                    return super().fit(X, y, sample_weight)
        self._validate_params()
        strength = self._strength(X)
        given = (X, y, sample_weight)
        if not is_collection(X):
            self._learn(*self._inputs(X, y, sample_weight), strength, given)
            return self
        sample_weight, factor = all_rows.one_weight(sample_weight)
        (rows,) = stage(self, [Table(X, y, sample_weight)], True, True, False, 0.0, self.client, self.workers, None)
        try:
            inputs, total = self._staged_inputs(rows)
            self._learn(inputs, factor * total, strength, given)
        finally:
            rows.pieces.close()
        return self

    def decision_function(self, X: Any) -> Any:
        """Return the scores of the rows of X: (n_samples,), or (n_samples, n_classes); of a Dask collection lazily."""
        return lazy.by_blocks(self, "decision_function", X) if is_collection(X) else super().decision_function(X)

    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities of the classes, (n_samples, n_classes); of a Dask collection lazily."""
        return lazy.by_blocks(self, "predict_proba", X) if is_collection(X) else super().predict_proba(X)

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of the probabilities; of a Dask collection lazily."""
        return lazy.by_blocks(self, "predict_log_proba", X) if is_collection(X) else super().predict_log_proba(X)

    # Settings.

    def _is_little(self, X: Any, y: Any) -> bool:
        if self.solver != "lbfgs" or self._has_l1:
            return True
        try:
            outputs = outputs_of(np.unique(np.asarray(y)), 0)
        except TypeError:  # labels that cannot be compared
            return True
        return all_rows.is_left_to_scikit_learn(self, X, outputs)

    @property
    def _has_l1(self) -> bool:
        return self.penalty in ("l1", "elasticnet") or (self.penalty == "deprecated" and bool(self.l1_ratio))

    def _strength(self, X: Any) -> float:
        """Return ``1 / C``, 0 for no penalty; warn of what scikit-learn does, and refuse what ranks lack."""
        if self.solver != "lbfgs":
            all_rows.refuse_solver(self, X, f"solver={self.solver!r}", "use solver='lbfgs'")
        if self._has_l1:
            setting = f"l1_ratio={self.l1_ratio}" if self.penalty == "deprecated" else f"penalty={self.penalty!r}"
            all_rows.refuse_solver(
                self,
                X,
                setting,
                "use l1_ratio=0 (an L2 penalty) or SGDClassifier(loss='log_loss', penalty='elasticnet')",
            )
        if self.dual:
            raise ValueError("dual=True with solver='lbfgs', which has no dual form: use dual=False")
        if self.penalty != _DEFAULTS["penalty"]:
            warn(
                self,
                f"penalty={self.penalty!r} is deprecated: use l1_ratio=0 for 'l2', C=np.inf for None",
                FutureWarning,
            )
        if self.l1_ratio is None:
            warn(self, "l1_ratio=None is deprecated: use l1_ratio=0", FutureWarning)
        if self.n_jobs is not None:
            warn(
                self, f"n_jobs={self.n_jobs} has no effect, and is deprecated: leave it out; see workers", FutureWarning
            )
        if self.penalty is None and self.C != 1.0:
            warn(self, f"penalty=None ignores C={self.C}", UserWarning)
        return 0.0 if self.penalty is None else 1.0 / float(self.C)

    # Data.

    def _inputs(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, float]:
        """Return checked rows as they are trained on, and the sum of their weights."""
        X, y = validated(self, X, y, accept_sparse="csr", dtype=KINDS, order="C")
        check_classification_targets(y)
        y = as_text(y)
        self.classes_ = np.unique(y)
        refuse_one_class(self.classes_)
        weights, codes = None, np.searchsorted(self.classes_, y)
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
        if self.class_weight is not None:
            ones = np.ones(len(y), X.dtype) if weights is None else weights
            own = compute_class_weight(self.class_weight, classes=self.classes_, y=y, sample_weight=ones)
            weights = ones * own.astype(X.dtype)[codes]
        total = float(len(y)) if weights is None else all_rows.counted(float(weights.sum(dtype=np.float64)))
        target, n_classes = coded("log_loss", codes, len(self.classes_), X.dtype)
        return inputs_of(X, target, weights, n_classes, getattr(self, "feature_names_in_", None)), total

    def _staged_inputs(self, rows: Any) -> tuple[Any, float]:
        """Return a staged collection as it is trained on, and the sum of its weights."""
        self.classes_ = labels = as_text(rows.found_labels)
        _, mass = rows.tally(labels)
        factors = None
        if self.class_weight is not None:
            factors = compute_class_weight(self.class_weight, classes=labels, y=labels, sample_weight=mass)
        total = all_rows.counted(float(mass.sum() if factors is None else factors @ mass))
        return rows.coded(np.arange(len(labels)), labels, np.arange(len(labels)), factors), total

    # Training.

    def _learn(self, inputs: Any, total: float, strength: float, given: tuple[Any, Any, Any]) -> None:
        begin = self._begin(inputs)
        layout, inputs = all_rows.laid_out(inputs, bool(self.fit_intercept), begin)
        alpha = strength / total
        model = LinearModel(
            "log_loss", "l2" if alpha else None, alpha, fit_intercept=self.fit_intercept, dtype=inputs.dtype
        )
        rule = LBFGS(tol=float(self.tol), max_iter=int(self.max_iter))
        most = 2 * int(self.max_iter) + 50
        with told(self, given, most, layout.coefficients) as watch:
            outcome = all_rows.learn(self, model, inputs, rule, most, watch, begin)
        assert outcome.params is not None and outcome.state is not None
        self.coef_, self.intercept_ = layout.coefficients(outcome.params).values()
        arrays = outcome.state.arrays
        self.n_iter_ = np.array([min(rule.iterations(arrays), int(self.max_iter))], np.int32)
        ended = rule.ended(arrays)
        if ended not in (GRADIENT, LOSS) and outcome.status == "finished":
            why = f"{most} evaluations of all rows" if not ended else REASONS[ended]
            warn(
                self,
                f"lbfgs did not converge in {self.n_iter_[0]} iterations: {why}. Scale the columns of X "
                f"(dask_ml.preprocessing or sklearn.preprocessing.StandardScaler), or increase max_iter={self.max_iter}.",
            )

    def _begin(self, inputs: Any) -> TrainState | None:
        """Return where to start: with `warm_start` at the coefficients of the last fit."""
        if not self.warm_start or getattr(self, "coef_", None) is None:
            return None
        layout = CoefficientLayout(inputs.features, inputs.n_outputs, bool(self.fit_intercept))
        if self.coef_.shape != (layout.outputs, layout.features):
            raise ValueError(
                f"warm_start=True, but coef_ has shape {self.coef_.shape} where these data need "
                f"{(layout.outputs, layout.features)}: fit with the same columns and classes, or with warm_start=False"
            )
        return TrainState(layout.vector(self.coef_, self.intercept_, inputs.dtype))

    @contextmanager
    def _shown(self, X: Any, y: Any, sample_weight: Any) -> Iterator[None]:
        """Show a fit of scikit-learn's own code when it is over, as all other fits are shown; other solvers speak for themselves."""
        if not self.verbose or self.solver != "lbfgs":
            yield
            return
        self._validate_params()
        with Fitting(type(self).__name__, int(self.max_iter), int(self.verbose)) as display:
            yield
            loss = log_loss(y, super().predict_proba(X), sample_weight=sample_weight, labels=self.classes_)
            display.on_epoch(float(loss), number=int(self.n_iter_[0]))
