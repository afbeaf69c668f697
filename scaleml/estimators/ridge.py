"""scikit-learn's ``Ridge``, trained in parallel: normal equations summed over ranks, or L-BFGS over all-reduce."""

from __future__ import annotations

from typing import Any, ClassVar, final

import numpy as np
from sklearn import linear_model as sk
from sklearn.utils.validation import _check_sample_weight

from scaleml.api.watchers import Watchers
from scaleml.data.collections import Table, is_collection
from scaleml.data.row_sample import sample_rows
from scaleml.data.source import ArraySource
from scaleml.estimators import lazy
from scaleml.estimators.all_rows import AllRows, counted, laid_out, learn, one_weight, refuse_solver
from scaleml.estimators.base import EXTRAS, KINDS, inputs_of
from scaleml.estimators.callbacks import callbacks_of, told_of_both_ends, with_callbacks
from scaleml.estimators.checked import validated
from scaleml.estimators.normal_equations import COLUMNS, NormalEquations
from scaleml.estimators.staged import stage
from scaleml.estimators.warned import warn
from scaleml.models import LinearModel
from scaleml.models.moments import FlatMoments, Moments
from scaleml.optim import LBFGS
from scaleml.optim.lbfgs import GRADIENT, LOSS, REASONS
from scaleml.optim.summed import Summed

_SAMPLE = 1024
_MOST = 1000
"""Iterations of L-BFGS where `max_iter` says nothing."""


@final
class Ridge(AllRows, sk.Ridge):
    """Linear least squares with an L2 penalty: one pass over the data, or L-BFGS over all-reduce where columns are many.

    scikit-learn's ``Ridge``: change the import, keep the code. This class inherits its parameters, attributes and predictions; what
    follows is what differs.

    Parameters
    ----------
    alpha : float or array of shape (n_targets,)
    fit_intercept, positive, tol, max_iter
        As in scikit-learn.
    copy_X, random_state
        As in scikit-learn, for arrays in this process.
    solver : str
        On a cluster ``"auto"``, ``"cholesky"``, and with ``positive=True`` ``"lbfgs"``. The others are scikit-learn's own code, in this
        process.
    strategy : "auto" or Strategy
        ``"auto"`` leaves arrays of this process to scikit-learn's own code: one pass over them takes less than to bring them anywhere.
        Dask collections are trained where they lie. ``AllReduce(...)`` without compression, or ``Serial()``, always train on a cluster.
    workers : int, list of addresses or None
        Which workers of the cluster; None for all.

    Attributes
    ----------
    coef_, intercept_, n_features_in_, feature_names_in_, n_iter_, solver_
        As in scikit-learn.
    client : distributed.Client or None
        Set it to train on a certain cluster. A property, neither cloned nor pickled.

    Notes
    -----
    On a cluster of up to 2,000 columns (CSR: that hold anything) each rank sums ``x x'`` and ``x y'`` of its rows, in float64 about a
    shift near the mean; the sums over the ranks are solved by Cholesky in the client, for all targets and penalties. Of columns that depend
    on each other with ``alpha=0`` that is the solution of least norm. Beyond that L-BFGS minimises the same objective, for one penalty; it
    ends where an iteration lowers it by less than ``tol ** 2 / 1000`` of itself.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.linear_model import Ridge
    >>> X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]])
    >>> Ridge(alpha=0.5).fit(X, X @ [1.0, -1.0]).coef_.round(3).tolist()
    [0.8, -0.571]
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **sk.Ridge._parameter_constraints,
        "strategy": EXTRAS["strategy"],
        "workers": EXTRAS["workers"],
    }

    def __init__(
        self,
        alpha: Any = 1.0,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-4,
        solver: str = "auto",
        positive: bool = False,
        random_state: Any = None,
        strategy: Any = "auto",
        workers: Any = None,
    ) -> None:
        super().__init__(
            alpha=alpha,
            fit_intercept=fit_intercept,
            copy_X=copy_X,
            max_iter=max_iter,
            tol=tol,
            solver=solver,
            positive=positive,
            random_state=random_state,
        )
        self.strategy = strategy
        self.workers = workers

    n_iter_: Any
    intercept_: Any

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), Dask array or dataframe
        y : array-like or Dask collection of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : float, array-like or Dask collection of shape (n_samples,), optional

        Returns
        -------
        self
        """
        if not is_collection(X):
            y, sample_weight = lazy.local(self, y, sample_weight)
            if self.strategy == "auto":
                with told_of_both_ends(self):
                    return super().fit(X, y, sample_weight)
        self._validate_params()
        self._check_solver(X)
        if not is_collection(X):
            self._learn(*self._inputs(X, y, sample_weight))
            return self
        sample_weight, factor = one_weight(sample_weight)
        (rows,) = stage(self, [Table(X, y, sample_weight)], False, True, False, 0.0, self.client, self.workers, None)
        try:
            counts, mass = rows.tally(None)
            total = counted(float(mass[0]) if rows.is_weighted else float(counts[0]))
            columns = rows.targets or int(np.ndim(y) == 2)
            self._learn(rows.coded(None, None), columns, factor * total)
        finally:
            rows.pieces.close()
        return self

    def _check_solver(self, X: Any) -> None:
        if self.positive and self.solver not in ("auto", "lbfgs"):
            raise ValueError(
                f"solver={self.solver!r} with positive=True: use solver='auto' or 'lbfgs', or positive=False"
            )
        if not self.positive and self.solver == "lbfgs":
            raise ValueError("solver='lbfgs' is for positive=True, as in scikit-learn: use solver='auto'")
        if self.solver not in ("auto", "cholesky", "lbfgs"):
            refuse_solver(self, X, f"solver={self.solver!r}", "use solver='auto'")

    def _inputs(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, int, float]:
        """Return checked rows as they are summed, the columns of y (0 for one dimension), and the sum of the weights."""
        X, y = validated(self, X, y, accept_sparse="csr", dtype=KINDS, order="C", multi_output=True, y_numeric=True)
        weights, total = None, float(X.shape[0])
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
            total = counted(float(weights.sum(dtype=np.float64)))
        names = getattr(self, "feature_names_in_", None)
        return (
            inputs_of(X, y.astype(X.dtype, copy=False), weights, None, names),
            0 if y.ndim == 1 else y.shape[1],
            total,
        )

    def _learn(self, inputs: Any, columns: int, total: float) -> None:
        """Fit, and set what is fitted, in scikit-learn's shapes."""
        alpha = self._penalties(max(1, columns))
        if inputs.is_sparse and self.solver == "cholesky" and self.fit_intercept:
            raise ValueError(
                "solver='cholesky' with sparse X and an intercept, as in scikit-learn: use solver='auto', or fit_intercept=False"
            )
        layout, kept = laid_out(inputs, bool(self.fit_intercept), None)
        small = kept.features <= COLUMNS
        coef, intercept = self._solve(kept, alpha, total) if small else self._descend(kept, alpha, total)
        if layout.used is not None:
            whole = np.zeros((len(coef), inputs.features))
            whole[:, layout.used] = coef
            coef = whole
        coef, intercept = coef.astype(inputs.dtype), intercept.astype(inputs.dtype)
        # scikit-learn: a column of y that is the only one leaves coefficients of one dimension, and an intercept of one.
        self.coef_ = coef[0] if len(coef) == 1 else coef
        if not self.fit_intercept:
            self.intercept_ = 0.0
        else:
            self.intercept_ = intercept if columns else intercept[0]

    def _penalties(self, targets: int) -> Any:
        alpha = np.ravel(np.asarray(self.alpha, np.float64))
        if len(alpha) not in (1, targets):
            raise ValueError(
                f"alpha has {len(alpha)} values for {targets} targets: Number of targets and number of penalties do not correspond; "
                "pass one for all, or one a target"
            )
        return np.broadcast_to(alpha, (targets,))

    def _solve(self, inputs: Any, alpha: Any, total: float) -> tuple[Any, Any]:
        """Return coefficients (t, p) and intercepts (t,) by the normal equations."""
        x_shift, y_shift = _shifts(inputs) if self.fit_intercept else (np.zeros(inputs.features), np.zeros(len(alpha)))
        model = Moments(() if inputs.is_sparse else tuple(x_shift.tolist()), tuple(y_shift.tolist()), inputs.dtype)
        outcome = learn(self, model, inputs, Summed(), 1, Watchers(callbacks=callbacks_of(self)))
        means = FlatMoments(inputs.features, len(alpha), (), ()).parts(np.asarray(outcome.params))
        system = NormalEquations.of(means, total, x_shift, y_shift, centred=bool(self.fit_intercept))
        self.n_iter_, self.solver_ = None, "lbfgs" if self.positive else "cholesky"
        if self.positive:
            coef, converged = system.solve_positive(alpha, float(self.tol), self.max_iter)
            if not converged:
                warn(self, f"lbfgs did not converge: increase max_iter={self.max_iter} or tol={self.tol}")
        else:
            coef = system.solve(alpha)
        return coef, system.y_mean - coef @ system.x_mean

    def _descend(self, inputs: Any, alpha: Any, total: float) -> tuple[Any, Any]:
        """The same by L-BFGS over all-reduce."""
        refused = "positive=True" if self.positive else "one alpha a target" if (alpha != alpha[0]).any() else ""
        if refused or self.solver == "cholesky":
            raise ValueError(
                f"{refused or 'solver=' + repr(self.solver)} with {inputs.features} columns that hold something: normal equations "
                f"are summed for up to {COLUMNS} on a cluster; fit in this process (strategy='auto' and arrays), with fewer columns, or "
                "with solver='auto' and one alpha"
            )
        strength = float(alpha[0]) / total
        model = LinearModel(
            "squared_error", "l2" if strength else None, strength, fit_intercept=self.fit_intercept, dtype=inputs.dtype
        )
        most = _MOST if self.max_iter is None else int(self.max_iter)
        rule = LBFGS(tol=0.0, ftol=float(self.tol) ** 2 / 1000, max_iter=most)
        outcome = learn(self, model, inputs, rule, 2 * most + 50, Watchers(callbacks=callbacks_of(self)))
        assert outcome.params is not None and outcome.state is not None
        layout, _ = laid_out(inputs, bool(self.fit_intercept), outcome.state)
        ended = rule.ended(outcome.state.arrays)
        self.n_iter_, self.solver_ = np.array([rule.iterations(outcome.state.arrays)], np.int32), "lbfgs"
        if ended not in (GRADIENT, LOSS):
            warn(
                self,
                f"lbfgs did not converge in {self.n_iter_[0]} iterations: {REASONS[ended]}. Increase max_iter or tol",
            )
        found = layout.coefficients(outcome.params)
        return found["coef_"], found["intercept_"]


def _shifts(inputs: Any) -> tuple[Any, Any]:
    """Return the means of some rows, of X (dense) and y: what is subtracted from all of them."""
    if isinstance(inputs, ArraySource):
        some = sample_rows(inputs.x, inputs.y, None, _SAMPLE)
    else:
        some = inputs.sample(_SAMPLE)
    x, y = some.x, some.y
    y = np.asarray(y, np.float64).reshape(len(y), -1)
    zeros = np.zeros(inputs.features)
    return zeros if inputs.is_sparse else np.asarray(x, np.float64).mean(axis=0), y.mean(axis=0)
