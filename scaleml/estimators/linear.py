"""Linear estimators between scikit-learn and the ranks: parameters in, coefficients out."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils.validation import validate_data

from scaleml.data.labels import as_text
from scaleml.data.row_sample import RowSample, sample_rows
from scaleml.data.source import ArraySource
from scaleml.estimators.base import KINDS, Trained, inputs_of
from scaleml.estimators.callbacks import told
from scaleml.estimators.coefficients import CoefficientLayout
from scaleml.estimators.job import Job, choose, run, signature_of
from scaleml.estimators.rowwise import Rowwise
from scaleml.estimators.warned import warn
from scaleml.models import LinearModel
from scaleml.models.losses import CLASSES
from scaleml.optim import SGD, Averaged, Columns, Optimizer, RowRate, RowSteps
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.train_state import TrainState

CURVATURE: Final = {
    "log_loss": 0.25,
    "squared_hinge": 2.0,
    "modified_huber": 2.0,
    "squared_epsilon_insensitive": 2.0,
    # It bends at one point only. Bounded like the others it comes to its minimum and stays there; scikit-learn's steps carry
    # rows far beyond their margin, and small classes are told apart by that.
    "hinge": 0.1,
}
"""Largest second derivative of a loss; 1 for those that are not here."""
_SAMPLE: Final = 4096


class Linear(Rowwise, Trained):
    """What ``SGDClassifier`` and ``SGDRegressor`` share."""

    coef_: Any
    intercept_: Any
    classes_: Any
    _own_weights: tuple[float, ...] | None = None
    """What each of three classes and more weighs in its own problem."""

    def _check_settings(self: Any, partial: bool) -> None:
        """Raise for settings that scikit-learn refuses, too, and for those that only scikit-learn has."""
        if partial and self.early_stopping:
            raise ValueError("early_stopping should be False with partial_fit")
        if self.learning_rate in ("pa1", "pa2"):
            raise ValueError(
                f"learning_rate={self.learning_rate!r}: passive-aggressive steps need one row at a time and are scikit-learn's own: "
                "they need strategy='auto' and data in this process's memory; otherwise use 'optimal'"
            )
        if self.learning_rate == "optimal" and self.alpha == 0:
            raise ValueError(
                "alpha must be > 0 since learning_rate is 'optimal'. alpha is used to compute the optimal rate."
            )
        if self.penalty == "elasticnet" and self.l1_ratio is None:
            raise ValueError("l1_ratio must be set when penalty is 'elasticnet'")

    def _penalties(self: Any) -> tuple[float, float]:
        """Return the strengths of the L1 and the L2 part."""
        share = {"l2": 0.0, "l1": 1.0, "elasticnet": self.l1_ratio}.get(self.penalty)
        return (0.0, 0.0) if share is None else (self.alpha * share, self.alpha * (1 - share))

    def _model(self: Any, dtype: str, plain: bool) -> LinearModel:
        """Return the model; unless ``plain`` without the L1 part, which the steps apply."""
        l1, l2 = self._penalties()
        total = l1 + l2 if plain else l2
        return LinearModel(
            loss=self.loss,
            penalty=None if not total else "elasticnet" if plain else "l2",
            alpha=total,
            l1_ratio=l1 / total if plain and total else 0.0,
            fit_intercept=self.fit_intercept,
            epsilon=max(self.epsilon, 1e-12) if self.loss == "huber" else self.epsilon,
            dtype=dtype,
            multiclass="ovr",
            class_weight=self._own_weights,
        )

    def _loss_at(self: Any, X: Any, y: Any) -> float:
        """Return the mean loss, over rows and, one against the rest, over classes, of the coefficients as they are."""
        x = validate_data(self, X, accept_sparse="csr", dtype=KINDS, order="C", reset=False)
        target, n_classes = np.asarray(y).ravel(), None
        if is_classifier(self):
            codes = np.searchsorted(self.classes_, as_text(target))
            target, n_classes = coded(self.loss, codes, len(self.classes_), x.dtype)
        inputs = inputs_of(x, target, None, n_classes)
        layout = CoefficientLayout(inputs.features, inputs.n_outputs, True)
        model = LinearModel(self.loss, None, epsilon=max(self.epsilon, 1e-12), dtype=inputs.dtype, multiclass="ovr")
        network = model.build(signature_of(inputs, inputs.dtype))
        w = layout.vector(self.coef_, self.intercept_, inputs.dtype)
        loss, _ = network.summarise(network.statistics(w, inputs.x, inputs.encode(inputs.dtype)))
        return loss / inputs.n_outputs

    def _batch(self: Any, rows: int) -> int:
        """Return the global batch: 1/64 of the rows, at most 1024.

        Few rows of classes are taken one by one, or training would end before it has come far; few rows of numbers are not,
        for their noise would show.
        """
        least = 1 if is_classifier(self) else 16
        return min(rows, max(least, min(1024, rows // 64)) if self.batch_size == "auto" else int(self.batch_size))

    def _rule(self: Any, batch: int) -> Optimizer:
        """Return the optimizer: steps come ready from ``RowSteps``, unless the user has one of their own."""
        if self.optimizer is not None:
            return self.optimizer
        rule = SGD(self.eta0, schedule="adaptive") if self.learning_rate == "adaptive" else SGD(1.0)
        if not self.average:
            return rule
        return Averaged(rule, start=max(1, math.ceil(int(self.average) / batch)))

    def _train(
        self: Any,
        inputs: Any,
        held_out: ArraySource | None,
        *,
        epochs: int,
        begin: TrainState | None,
        given: tuple[Any, Any, Any],
    ) -> Outcome:
        """Train and set ``coef_``, ``intercept_``, ``n_iter_``, ``t_``; ``given`` is X, y and weights for callbacks."""
        layout, inputs, held_out = self._laid_out(inputs, held_out, begin)
        servers = self.strategy != "auto" and self.strategy.layout(1).servers > 0
        plain = self.optimizer is not None or servers
        job = self._job(inputs, held_out, epochs=epochs, begin=begin, plain=plain)
        with told(self, given, epochs, layout.coefficients) as watch:
            outcome = run(job, choose(job, self.strategy, self.client), self.workers, self.client, watch)
        self._take(outcome, layout, inputs.rows)
        return outcome

    def _job(
        self: Any, inputs: Any, held_out: ArraySource | None, *, epochs: int, begin: TrainState | None, plain: bool
    ) -> Job:
        """Return what is to be trained; ``plain``: the L1 part is left to the model."""
        dtype, batch, seed = inputs.dtype, self._batch(inputs.rows), self._seed()
        rule = self._rule(batch)
        return Job(
            model=self._model(dtype, plain),
            inputs=inputs,
            held_out=held_out,
            optimizer=rule,
            epochs=epochs,
            batch_size=batch,
            seed=seed,
            stop=StopRule(
                None if self.tol is None or epochs == 1 else float(self.tol),
                int(self.n_iter_no_change),
                "score" if self.early_stopping else "loss",
            ),
            begin=begin,
            steps=None if self.optimizer is not None else self._steps(inputs, rule.learning_rate, seed, plain),
            shuffle=self.shuffle,
            by_rows=True,
        )

    def _job_for_ranks(self: Any, inputs: Any, epochs: int, plain: bool) -> Job:
        """Return what ranks train from the start."""
        return self._job(inputs, None, epochs=epochs, begin=None, plain=plain)

    def _taker(self: Any, job: Job) -> Any:
        """Return what sets an estimator's attributes from the outcome of a job."""
        inputs = job.inputs
        layout = CoefficientLayout(inputs.features, inputs.n_outputs, bool(self.fit_intercept))
        return partial(type(self)._take, layout=layout, rows=inputs.rows)

    def _take(self: Any, outcome: Outcome, layout: CoefficientLayout, rows: int) -> None:
        """Set ``coef_``, ``intercept_``, ``n_iter_``, ``t_`` and where training could go on from."""
        for name, value in layout.coefficients(outcome.params).items():
            setattr(self, name, value)
        self._end = outcome.state.warm_start() if outcome.state is not None and layout.used is None else None
        if self.average and outcome.state is not None:  # where scikit-learn's own code would go on from
            self._standard_coef, self._standard_intercept = layout.coefficients(outcome.state.params).values()
            self._average_coef, self._average_intercept = self.coef_, self.intercept_.copy()
        self.n_iter_ = outcome.epochs
        self.t_ += outcome.epochs * rows

    def _laid_out(
        self: Any, inputs: Any, held_out: ArraySource | None, begin: TrainState | None
    ) -> tuple[CoefficientLayout, Any, ArraySource | None]:
        """Leave out the empty columns of hashed text: their coefficients stay 0, and most of 2**18 are empty.

        Not where `partial_fit` may see them filled later.
        """
        used = None
        if begin is None and self._columns is None and inputs.is_sparse:
            used = inputs.filled
            used = used if used is not None and len(used) else None  # of no columns there is no model
        layout = CoefficientLayout(inputs.features, inputs.n_outputs, bool(self.fit_intercept), used)
        if used is None:
            return layout, inputs, held_out
        # Held-out rows may have other columns.
        return layout, inputs.only(used), None if held_out is None else held_out.only(used)

    def _steps(self: Any, inputs: Any, unit: float, seed: int, plain: bool) -> Any:
        """Return the function from the rows of an update to its steps."""
        l1, l2 = self._penalties()
        if isinstance(inputs, ArraySource):
            seen, targets = sample_rows(inputs.x, inputs.y, inputs.weights, _SAMPLE), inputs.y
        else:
            seen = inputs.sample(_SAMPLE)
            targets = seen.y
        weights, counts = self._bending(seen), seen.counts
        if weights is not None and counts is None:
            counts = np.full(len(weights), inputs.rows / len(weights))
        columns = self._columns if self._columns is not None else Columns(seen.x.shape[1])
        columns.add(seen.x, None if weights is None else weights * counts)

        def steps(rows: int) -> RowSteps:
            return RowSteps.measured(
                seen.x,
                columns,
                RowRate(self.learning_rate, self.eta0, self.power_t, self.alpha),
                rows,
                inputs.rows,
                weights=weights,
                counts=counts,
                spares=self._own_weights is None,
                seed=seed,
                intercept=bool(self.fit_intercept),
                curvature=curvature(self.loss, self.epsilon, targets),
                outputs=inputs.n_outputs,
                l1=0.0 if plain else l1,
                l2=l2,
                unit=unit if self.learning_rate == "adaptive" else 1.0,
                dtype=inputs.dtype,
            )

        return steps

    def _bending(self: Any, seen: RowSample) -> Any:
        """Return how much the rows of a sample weigh in the problem where they weigh most; None where all weigh 1."""
        own = self._own_weights
        if own is None:
            return seen.weights
        codes = seen.y if seen.y.ndim == 1 else seen.y.argmax(axis=1)
        most = np.maximum(1.0, np.asarray(own))[codes.astype(np.int64)]
        return most if seen.weights is None else most * seen.weights

    def _from(self: Any, coef: Any, intercept: Any, inputs: Any) -> TrainState:
        """Return the start at these coefficients."""
        layout = CoefficientLayout(inputs.features, inputs.n_outputs, bool(self.fit_intercept))
        fresh = {"coef_": np.zeros((layout.outputs, layout.features)), "intercept_": np.zeros(layout.outputs)}
        for name, value in (("coef_", coef), ("intercept_", intercept)):
            if value is not None:
                if np.size(value) != fresh[name].size and not hasattr(value, "toarray"):
                    raise ValueError(
                        f"the initial {name} has shape {np.shape(value)}, but the data needs {fresh[name].shape}"
                    )
                fresh[name] = value
        return TrainState(layout.vector(fresh["coef_"], fresh["intercept_"], inputs.dtype))

    def _begin(self: Any, inputs: Any, init: Any) -> TrainState | None:
        """Return where to start: at ``init``, coefficients and intercepts; for None where the last call ended."""
        if init is None:
            return self._go_on(inputs)
        return None if all(part is None for part in init) else self._from(*init, inputs)

    def _initial(self: Any, coef_init: Any, intercept_init: Any) -> tuple[Any, Any]:
        """Forget what an earlier fit has left; return where the next one starts."""
        if self.warm_start and getattr(self, "coef_", None) is not None:
            coef_init = self.coef_ if coef_init is None else coef_init
            intercept_init = self.intercept_ if intercept_init is None else intercept_init
        self.t_, self._end, self._columns = 1.0, None, None
        return coef_init, intercept_init

    def _go_on(self: Any, inputs: Any) -> TrainState | None:
        """Return where the last call of ``partial_fit`` ended; what was set on ``coef_`` since then counts."""
        if getattr(self, "coef_", None) is None:
            return None
        begin = self._from(self.coef_, self.intercept_, inputs)
        end = self._end
        if end is None:
            return self._after_scikit_learn(begin, inputs)
        params = end.params.astype(begin.params.dtype) if self.average else begin.params
        return TrainState(params, end.arrays, updates=end.updates, rows=end.rows)

    def _after_scikit_learn(self: Any, begin: TrainState, inputs: Any) -> TrainState:
        """Return the start where scikit-learn's own code ended, with its count of rows and its average."""
        rows = float(self.t_ - 1)
        if not self.average or getattr(self, "_standard_coef", None) is None:
            return replace(begin, rows=rows)
        plain = self._from(self._standard_coef, self._standard_intercept, inputs)
        mean = self._from(self._average_coef, self._average_intercept, inputs).params
        updates = round(rows / self._batch(inputs.rows))
        return TrainState(plain.params, {"average": mean}, updates=updates, rows=rows)

    def _warn(self: Any) -> None:
        if self.tol is not None and self.n_iter_ == self.max_iter and self.tol > -np.inf:
            warn(
                self,
                "Maximum number of iteration reached before convergence. Consider increasing max_iter to improve the fit.",
            )


def curvature(loss: str, epsilon: float, y: Any) -> float:
    """Return the largest second derivative of a loss; where it has none in the usual sense, at the scale of the targets."""
    if loss in ("huber", "epsilon_insensitive"):
        spread = float(np.abs(y - np.median(y, axis=0)).mean()) or 1.0
        return min(1.0, epsilon / spread) if loss == "huber" else 1.0 / spread
    return CURVATURE.get(loss, 1.0)


def coded(loss: str, codes: Any, n_classes: int, dtype: Any) -> tuple[Any, int | None]:
    """Return the target that is trained on, and its number of classes: losses for numbers see +-1."""
    if loss in CLASSES:
        return codes, n_classes
    if n_classes == 2:
        return (2 * codes - 1).astype(dtype), None
    return (2 * (codes[:, None] == np.arange(n_classes)) - 1).astype(dtype), None
