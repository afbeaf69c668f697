"""Perceptron estimators between scikit-learn and the ranks: parameters in, layers out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from scaleml.arrays import Array
from scaleml.data.collections import is_collection, refuse_no_table
from scaleml.data.source import ArraySource
from scaleml.estimators.base import Trained, rows_of
from scaleml.estimators.callbacks import told
from scaleml.estimators.checked import refuse_no_weight_on_a_side
from scaleml.estimators.job import Job, check_fits, choose, run, signature_of
from scaleml.estimators.warned import warn
from scaleml.models import MLP, Network
from scaleml.models.losses import BinaryLog
from scaleml.optim import SGD, Adam, Optimizer
from scaleml.runtime.best_parameters import BestParameters
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.train_state import StoppingState, TrainState


class Perceptron(Trained):
    """What ``MLPClassifier`` and ``MLPRegressor`` share."""

    classes_: Any
    _end: TrainState | None = None
    _converged: bool = False

    def _is_left_to_scikit_learn(self: Any, X: Any, partial: bool = False) -> bool:
        """Whether scikit-learn's own code does it: L-BFGS is no method of batches, and Poisson's loss is not among ours."""
        refuse_no_table(X, "X")
        here = self.strategy == "auto" and self.optimizer is None and not is_collection(X)
        return here and (self._is_of_another_loss or (self.solver == "lbfgs" and not partial))

    @property
    def _is_of_another_loss(self: Any) -> bool:
        return getattr(self, "loss", "squared_error") not in ("squared_error", "log_loss")

    def _check_settings(self: Any, partial: bool) -> None:
        """Raise for settings that scikit-learn refuses, too, and for those that only scikit-learn has."""
        if self.solver == "lbfgs":
            raise ValueError(
                "solver='lbfgs' sees all data at each step and is scikit-learn's own: it needs strategy='auto' and data in this "
                "process's memory, in one fit; otherwise use 'adam' or 'sgd'"
            )
        sizes = [self.hidden_layer_sizes] if isinstance(self.hidden_layer_sizes, Integral) else self.hidden_layer_sizes
        if any(size <= 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {list(sizes)}.")
        if self._is_of_another_loss:
            raise ValueError(
                f"loss={self.loss!r} is scikit-learn's own: it needs strategy='auto' and data in this process's memory; otherwise "
                "use 'squared_error'"
            )
        if partial and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")

    def _rule(self: Any) -> Optimizer:
        """Return the optimizer that the settings name."""
        if self.optimizer is not None:
            return self.optimizer
        rate = self.learning_rate_init
        if self.solver == "adam":
            return Adam(rate, beta_1=self.beta_1, beta_2=self.beta_2, epsilon=self.epsilon, epsilon_hat=True)
        return SGD(
            rate,
            momentum=self.momentum,
            nesterov=bool(self.nesterovs_momentum and self.momentum > 0),
            schedule="constant" if self.learning_rate == "constant" else "adaptive",
        )

    def _train(self: Any, whole: Any, *, epochs: int, begin: TrainState | None, given: tuple[Any, Any, Any]) -> None:
        """Train and set scikit-learn's attributes; ``given`` is X, y and weights for callbacks."""
        train, held = whole, None
        # Drawn from in scikit-learn's order: first weights, held-out rows, the order of the rows. The same seed gives the
        # same model, to rounding.
        random = check_random_state(self.random_state)
        if begin is None:
            network = self._network(train, 0.0)
            check_fits(network, self._rule(), self.strategy, self.client, self.workers)
            begin = TrainState(network.init(random))
        if self.early_stopping and isinstance(whole, ArraySource):
            train, held = self._split(whole, given[2], random)
        job = self._job(train, held, epochs=epochs, begin=begin, random=random)
        network = self._network(train, job.model.alpha)
        with told(self, given, epochs, lambda params: layers(network, params)) as watch:
            outcome = run(job, choose(job, self.strategy, self.client), self.workers, self.client, watch)
        self._take(outcome, network, train.rows)

    @property
    def _patience(self: Any) -> int:
        """Epochs without improvement that end a fit: scikit-learn's perceptrons wait one longer than they say."""
        return int(min(self.n_iter_no_change, 10**9)) + 1

    def _job(
        self: Any, train: Any, held: ArraySource | None, *, epochs: int, begin: TrainState | None, random: Any
    ) -> Job:
        """Return what is to be trained."""
        rows = train.rows
        if self.batch_size == "auto":
            batch = min(200, rows)
        else:
            batch = int(self.batch_size)
            if batch > rows:
                warn(
                    self,
                    "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                    UserWarning,
                )
        mean_weight = train.mean_weight or 1.0
        rule = self._rule()
        sgd = self.optimizer is None and self.solver == "sgd"
        return Job(
            # scikit-learn divides the penalty by the weight of each batch; ranks divide it by that of a full one.
            model=self._model(train, self.alpha / (min(batch, rows) * mean_weight)),
            inputs=train,
            held_out=held,
            optimizer=rule,
            epochs=epochs,
            batch_size=min(batch, rows),
            seed=int(random.randint(2**31 - 1)) if self.strategy != "auto" or not isinstance(train, ArraySource) else 0,
            random=random,
            stop=StopRule(
                float(self.tol),
                self._patience,
                "score" if self.early_stopping else "loss",
                keep_best=bool(self.early_stopping),
                targets=1 if is_classifier(self) else train.n_outputs,
                power_t=float(self.power_t) if sgd and self.learning_rate == "invscaling" else None,
            ),
            begin=begin,
            shuffle=self.shuffle,
            alpha=float(self.alpha),
        )

    def _job_for_ranks(self: Any, inputs: Any, epochs: int, plain: bool) -> Job:
        """Return what ranks train from the start, at the first weights of the run's seed."""
        return self._job(inputs, None, epochs=epochs, begin=None, random=check_random_state(0))

    def _taker(self: Any, job: Job) -> Any:
        """Return what sets an estimator's attributes from the outcome of a job."""
        network = self._network(job.inputs, job.model.alpha)  # type: ignore[attr-defined]
        return partial(type(self)._take, network=network, rows=job.inputs.rows)

    def _model(self: Any, inputs: Any, alpha: float) -> MLP:
        """Return the model for these data."""
        return MLP(
            hidden_layer_sizes=tuple(np.atleast_1d(self.hidden_layer_sizes).astype(int).tolist()),
            activation=self.activation,
            loss=self._loss_for(inputs),
            alpha=alpha,
            dtype=inputs.dtype,
        )

    def _loss_for(self, inputs: Any) -> Any:
        """Return the loss: classes are codes, or, several a row, columns of 0 and 1."""
        if inputs.classes is not None:
            return "log_loss"
        return "binary_log_loss" if is_classifier(self) else "squared_error"

    def _network(self: Any, inputs: Any, alpha: float) -> Network:
        model = self._model(inputs, alpha)
        return model.build(signature_of(inputs, model.dtype))

    def _split(self: Any, whole: ArraySource, weights: Any, random: Any) -> tuple[ArraySource, ArraySource]:
        """Hold out a part of the rows, as scikit-learn does: in each of two classes alike, else at random."""
        rows, held_rows = train_test_split(
            np.arange(whole.rows),
            random_state=random,
            test_size=self.validation_fraction,
            stratify=whole.y if whole.task == "binary" else None,
        )
        if len(held_rows) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        # What is held out weighs what the user says, whatever its class.
        train, held = rows_of(whole, rows), rows_of(replace(whole, weights=weights), held_rows)
        refuse_no_weight_on_a_side(train, held)
        return train, held

    def _take(self: Any, outcome: Any, network: Any, rows: int) -> None:
        """Set the attributes that training gives."""
        for name, value in layers(network, outcome.params).items():
            setattr(self, name, value)
        self._end, seen = outcome.state, None if outcome.state is None else outcome.state.stopping
        self._converged = seen is not None and seen.converged
        # As scikit-learn's own code leaves it, and goes on from it.
        self._no_improvement_count = 0 if seen is None else self._patience if seen.converged else seen.stale
        self.n_iter_ = outcome.epochs
        self.t_ += outcome.epochs * rows
        self.loss_curve_ = [*self.loss_curve_, *outcome.losses]
        self.loss_ = self.loss_curve_[-1]
        if self.early_stopping:
            self.validation_scores_ = [*(self.validation_scores_ or []), *outcome.scores]
            self.best_validation_score_, self.best_loss_ = max(self.validation_scores_), None
        else:
            self.validation_scores_ = self.best_validation_score_ = None
            self.best_loss_ = min(self.loss_curve_)

    def _first(self: Any) -> None:
        """Forget what an earlier fit has left."""
        self.t_, self.loss_curve_, self.validation_scores_, self._end = 0, [], None, None
        self.best_loss_ = self.best_validation_score_ = None
        self._no_improvement_count = 0

    def _go_on(self: Any, dtype: Any, keep_state: bool) -> TrainState | None:
        """Return the start at ``coefs_`` and ``intercepts_``, with the optimizer's state if that goes on, too."""
        if not hasattr(self, "coefs_"):
            return None
        pairs = zip(self.coefs_, self.intercepts_, strict=True)
        params = np.concatenate([np.asarray(part, dtype).ravel() for pair in pairs for part in pair])
        start, end = TrainState(params, rows=float(self.t_)), self._end
        if keep_state and end is not None:
            start = replace(start, arrays=end.arrays, updates=end.updates)
        best = self.best_validation_score_ if self.early_stopping else self.best_loss_
        if best is None:
            return start
        value = -best if self.early_stopping else best
        start.stopping = StoppingState(value, int(getattr(self, "_no_improvement_count", 0)))
        if self.early_stopping:
            start.best = BestParameters(value, 0, params.copy())
        return start

    def _warn(self: Any) -> None:
        if self.n_iter_ == self.max_iter and not self._converged:
            warn(
                self,
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't converged yet.",
            )


def layers(network: Network, params: Array) -> dict[str, Any]:
    """Return what scikit-learn predicts with: ``coefs_``, ``intercepts_`` and what they are, from the vector of parameters."""
    coefs, intercepts = [], []
    for block in network.blocks:
        own = params[block.start : block.stop]
        coefs.append(own[: block.n_weights].reshape(block.in_features, block.out_features).copy())
        intercepts.append(own[block.n_weights :].copy())
    task = "labels" if isinstance(network.loss, BinaryLog) else network.signature.task
    return {
        "coefs_": coefs,
        "intercepts_": intercepts,
        "n_layers_": len(coefs) + 1,
        "n_outputs_": network.signature.n_outputs,
        "out_activation_": {"labels": "logistic", "multiclass": "softmax", "regression": "identity"}[task],
    }
