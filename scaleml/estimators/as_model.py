"""Estimators as models: what ``train`` and ``compare`` train where they are given an estimator, or a pipeline that ends in one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Final, final

from sklearn.base import clone, is_classifier
from sklearn.utils import _safe_indexing, check_random_state, indexable

from scaleml.api.trainable import Given, Trainable
from scaleml.arrays import Array
from scaleml.data.collection_source import CollectionSource
from scaleml.data.collections import Table, is_collection, is_several
from scaleml.data.source import ArraySource
from scaleml.data.split import hold_out
from scaleml.data.training_set import checked_validation, refuse_empty_side, validation_table
from scaleml.estimators import lazy
from scaleml.estimators.job import Job
from scaleml.estimators.staged import stage
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.stop_rule import StopRule
from scaleml.strategies import AllReduce

_SEEDS: Final = 2**32


@final
@dataclass(frozen=True)
class FittedAs:
    """Makes a fitted estimator of what a run has left; it can be pickled and holds no data.

    Parameters
    ----------
    estimator : estimator
        That knows its columns and classes.
    take : callable
        Given the estimator and the outcome, sets what training has found.
    pipeline : Pipeline or None
        The fitted transformers, and as its last step the estimator as the user passed it.
    """

    estimator: Any
    take: Callable[[Any, Outcome], None]
    pipeline: Any = None

    def __call__(self, params: Array, outcome: Outcome) -> Any:
        """Return a fitted copy with these parameters (P,)."""
        estimator = copy.copy(self.estimator)
        # Where training could go on from belongs to the run.
        self.take(estimator, replace(outcome, params=params, state=None))
        if self.pipeline is None:
            return estimator
        pipeline = copy.copy(self.pipeline)
        pipeline.steps = [*pipeline.steps[:-1], (pipeline.steps[-1][0], estimator)]
        return pipeline


def as_trainable(estimator: Any, whole: Any, given: Given) -> Trainable:
    """Return what ranks train of an estimator, as its ``fit`` with a strategy would.

    Parameters
    ----------
    estimator : estimator of this package
        Left as it is.
    whole : Pipeline or estimator
        The pipeline that it ends, or itself.
    given : Given

    Raises
    ------
    ValueError, TypeError
        For settings and data that break a rule.
    """
    own = clone(estimator)
    own._client = estimator._client
    if given.batch_size is not None:
        own.batch_size = given.batch_size
    own._validate_params()
    own._check_settings(partial=False)
    _refuse_what_ranks_lack(own)
    seed = _seed(own, given)
    given = replace(
        given,
        client=own.client if given.client is None else given.client,
        workers=own.workers if given.workers is None else given.workers,
        validation=float(own.validation_fraction)
        if given.validation is None and own.early_stopping
        else given.validation,
    )
    checked_validation(given.validation)
    pipeline = None if whole is estimator else clone(whole)
    inputs: Any
    held_out: Any
    if not is_collection(given.X):
        inputs, held_out = _checked(own, given, pipeline, seed)
        return _assembled(own, given, pipeline, seed, inputs, held_out)
    sources = _staged(own, given, pipeline, seed)
    try:
        if isinstance(given.validation, float):
            refuse_empty_side(given.validation, sources[0].rows, sources[0].held)
        inputs = own._staged_inputs(sources[0])
        held_out = _held_out_there(own, given, inputs, *sources[1:])
        return _assembled(own, given, pipeline, seed, inputs, held_out)
    except BaseException:
        for source in sources:
            source.pieces.close()
        raise


def _assembled(own: Any, given: Given, pipeline: Any, seed: int, inputs: Any, held_out: Any) -> Trainable:
    usual = AllReduce() if own.strategy == "auto" else own.strategy
    strategies = [usual if strategy is None else strategy for strategy in given.strategies]
    # An L1 penalty enters by the steps, unless a run has others: then by the model, which all runs share.
    plain = own.optimizer is not None or any(optimizer is not None for optimizer in given.optimizers)
    plain = plain or any(strategy.layout(1).servers > 0 for strategy in strategies)
    job: Job = own._job_for_ranks(inputs, int(own.max_iter) if given.epochs is None else given.epochs, plain)
    labels = getattr(own, "classes_", None)
    named = inputs if inputs.classes is None else replace(inputs, classes=labels)
    if isinstance(held_out, ArraySource) and held_out.classes is not None:
        held_out = replace(held_out, classes=labels)
    return Trainable(
        job.model,
        replace(given, X=named, y=None, sample_weight=None, validation=held_out),
        strategy=usual,
        optimizer=job.optimizer,
        epochs=job.epochs,
        batch_size=job.batch_size,
        seed=seed,
        stop=_rule(own, job.stop, given.epochs is not None, has_held_out=given.validation is not None),
        steps=job.steps,
        by_rows=job.by_rows,
        fitted=FittedAs(own, own._taker(replace(job, inputs=inputs)), pipeline),
    )


def _rule(own: Any, rule: StopRule, exact: bool, has_held_out: bool) -> StopRule:
    """Return when to stop: after just the epochs that were asked for, else as ``fit`` would."""
    if not has_held_out:
        rule = replace(rule, monitor="loss", keep_best=False)
    return replace(rule, tol=None) if exact else rule


def _refuse_what_ranks_lack(own: Any) -> None:
    if not own.shuffle:
        raise ValueError("shuffle=False: ranks train on shuffled shards; use shuffle=True, or fit with strategy='auto'")


def _seed(own: Any, given: Given) -> int:
    """Return the run's seed: an integer ``random_state`` is one as it is, so that first weights are scikit-learn's."""
    if given.seed is not None:
        return given.seed
    if own.random_state is None:
        return 0
    if isinstance(own.random_state, Integral):
        return int(own.random_state) % _SEEDS
    return int(check_random_state(own.random_state).randint(2**31 - 1))


def _checked(own: Any, given: Given, pipeline: Any, seed: int) -> tuple[ArraySource, ArraySource | None]:
    """Return the rows to train on and those held out, through the pipeline's transformers, which are fitted on the former."""
    y, weights = lazy.local(own, given.y, given.sample_weight)
    if y is None:
        raise ValueError("y is None: pass one label or target a row")
    X, y, weights = indexable(given.X, y, weights)
    held: tuple[Any, Any, Any] | None = None
    validation = given.validation
    if isinstance(validation, float):
        count = X.shape[0] if hasattr(X, "shape") else len(X)
        rows, held_rows = hold_out(count, validation, seed)
        refuse_empty_side(validation, len(rows), len(held_rows))
        held = _picked(X, y, weights, held_rows)
        X, y, weights = _picked(X, y, weights, rows)
    elif validation is not None:
        held = (*validation, None)[:3] if len(validation) == 2 else tuple(validation)
    transformers = None if pipeline is None or len(pipeline.steps) < 2 else pipeline[:-1]
    if transformers is not None:
        X = transformers.fit_transform(X, y)
    inputs = own._inputs(X, y, weights)
    if held is None:
        return inputs, None
    held_X, held_y, held_weights = held[0], *lazy.local(own, held[1], held[2])
    if transformers is not None:
        held_X = transformers.transform(held_X)
    return inputs, own._held_out(held_X, held_y, held_weights)


def _picked(X: Any, y: Any, weights: Any, rows: Any) -> tuple[Any, Any, Any]:
    picked = [None if part is None else _safe_indexing(part, rows) for part in (X, y, weights)]
    return picked[0], picked[1], picked[2]


def _staged(own: Any, given: Given, pipeline: Any, seed: int) -> list[CollectionSource]:
    """Return a Dask collection brought to files of its workers, and what is evaluated on, if that is one, too."""
    if pipeline is not None and any(step not in (None, "passthrough") for _, step in pipeline.steps[:-1]):
        raise TypeError(
            "X is a Dask collection, and scikit-learn's transformers need it in this process: pass X.compute(), or transform it first "
            "(with dask_ml.preprocessing, or map_blocks) and pass the pipeline's last step alone"
        )
    fraction = given.validation if isinstance(given.validation, float) else 0.0
    classifier = is_classifier(own)
    indicators = classifier and is_several(given.y)
    whose = (given.client, given.workers, seed)
    tables = [Table(given.X, given.y, given.sample_weight)]
    if given.validation is not None and not fraction and is_collection(given.validation[0]):
        tables.append(validation_table(given.validation))
    return stage(own, tables, classifier and not indicators, True, indicators, fraction, *whose)


def _held_out_there(own: Any, given: Given, inputs: Any, staged: CollectionSource | None = None) -> Any:
    """Return held-out data other than a part of a Dask collection, as ``TrainingData`` takes it."""
    if given.validation is None or isinstance(given.validation, float):
        return None
    X, y, *weights = given.validation
    if not is_collection(X):
        return own._held_out(X, *lazy.local(own, y, *(weights or [None])))
    if inputs.classes is None and is_classifier(own):
        raise ValueError(
            f"validation is a Dask collection, and loss={own.loss!r} learns 1 and -1 of classes: pass validation as the fraction of "
            "the rows to hold out, or as arrays of this process"
        )
    return staged
