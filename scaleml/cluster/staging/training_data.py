"""Training data: X and y of one or several runs, checked once, brought to the workers once, whatever kind they are of."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
from distributed import Client

from scaleml.arrays import Array
from scaleml.checks import hint
from scaleml.clock import WALL
from scaleml.cluster.placement import Workers
from scaleml.cluster.staging.first_partition import check_columns
from scaleml.cluster.staging.memory import check_model
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.cluster.staging.room import check_room
from scaleml.cluster.staging.stager import ClusterStager
from scaleml.data.augmented_batches import check_augmentations
from scaleml.data.class_weights import class_weights
from scaleml.data.collections import is_collection
from scaleml.data.partition import RowFormat
from scaleml.data.pixels import BRIGHT
from scaleml.data.source import Source, Task
from scaleml.data.training_set import place_training_set
from scaleml.models import FlatModel, Model, Signature
from scaleml.models.flat_model import Unscaled, Weighing
from scaleml.optim import SGD, Optimizer
from scaleml.runtime.footprint import Footprint
from scaleml.runtime.gradient import rows_at_once
from scaleml.strategies import Serial, Strategy


class TrainingData:
    """X and y of several runs: what of them the model must know, where they lie, and when they go.

    Parameters
    ----------
    model : Model
        What is to be trained.
    X, y, sample_weight, validation
        As `scaleml.data.training_set.place_training_set` takes them.
    seed : int
        Decides the order of the rows.
    client, workers
        As ``train`` takes them; a cluster is looked for only if a Dask collection needs one.
    uses : sequence of (Strategy, Optimizer)
        What is to train on it: models that no worker could hold so are refused before anything is brought anywhere.

    Attributes
    ----------
    signature : Signature
        What the model must know of the data.
    network : FlatModel
        The model built for it.
    classes : array or None
        The labels.
    names : tuple or None
        Of the columns, where X is a table that has some.
    tally : ClassTally or None
        How often each class occurs; None for numbers.
    advice : str
        Which columns are too large for training by gradients, if any are.
    rows : int
        Rows to train on.
    placed : PlacedData
        Where the data is.
    placing_seconds : float
        How long it took to bring it there.
    """

    signature: Signature
    network: FlatModel
    classes: Array | None
    names: tuple[object, ...] | None

    def __init__(
        self,
        model: Model,
        X: object,
        y: object,
        sample_weight: object,
        validation: object,
        seed: int,
        client: Client | None = None,
        workers: Workers = None,
        uses: Sequence[tuple[Strategy, Optimizer]] = ((Serial(), SGD()),),
    ) -> None:
        began = WALL.now()
        self._model, self._cluster, self._uses = model, (client, workers), uses
        self._is_weighted = sample_weight is not None or (
            isinstance(validation, tuple | list) and len(validation) == 3 and validation[2] is not None
        )
        check_room(X, model.dtype, client, workers, any_shape=model.takes_any_shape)
        check_columns(X, client, workers)
        self._glance(X)
        form = RowFormat(model.dtype, model.is_classifier, seed, model.takes_any_shape)
        stager = ClusterStager(client, workers)
        try:
            self.tally = place_training_set(X, y, sample_weight, validation, form, stager, self._build)
        except BaseException:
            stager.close()
            raise
        self.placed = PlacedData(*stager.placed)
        self.rows = self.placed.train.rows
        self.placing_seconds = WALL.now() - began

    def _build(self, source: Source, counts: Array | None) -> Array | None:
        """Build the model for the data and return what the rows of each class weigh; raise where its loss does not fit them."""
        self.classes, self.names = source.classes, None if source.names is None else tuple(source.names)
        shape = source.features, source.n_outputs, source.task
        self.signature = Signature(*shape, self._model.dtype, source.is_sparse, source.row, source.target)
        if self._model.augment:
            check_augmentations(
                self._model.augment, np.zeros(2, source.row) if source.row else self.signature.no_rows()
            )
        if source.classes is not None:
            self._model.check_labels(source.classes)
        model, weights = self._model, class_weights(self._model.class_weight, source.classes, counts)
        if weights is not None and model.weighs_classes_apart(self.signature):
            # One class against the rest: each weighs in its own problem, which only the loss knows.
            model, weights = model.with_class_weight(tuple(weights.tolist())), None
        self.network = network = model.build(self.signature)
        if (self._is_weighted or weights is not None) and isinstance(network, Weighing) and network.why_no_weights:
            raise ValueError(f"rows have weights, but {network.why_no_weights}")
        is_raw = isinstance(network, Unscaled) and network.takes_as_it_is
        if is_raw and source.brightest > BRIGHT:
            hint(
                f"X holds whole numbers up to {source.brightest}, pixels it seems, and {model!r} multiplies them as they are, where "
                f"learning rates are for values of about 1: {model.how_to_scale}"
            )
        self.advice = "" if source.sizes is None else source.sizes.advice(source.names)
        self._check_memory(self.network)
        return weights

    def _glance(self, X: object) -> None:
        """Refuse a model that is too large before a Dask collection is computed, as far as its columns alone tell."""
        shape = getattr(X, "shape", None)
        is_table = not self._model.takes_any_shape  # of others more is to be known than columns
        columns = shape[1] if is_table and is_collection(X) and isinstance(shape, tuple) and len(shape) == 2 else 0
        if isinstance(columns, int | np.integer) and columns > 0:
            task: Task = "binary" if self._model.is_classifier else "regression"
            with contextlib.suppress(ValueError):  # which other labels or targets may mend: `_build` says it
                self._check_memory(self._model.build(Signature(int(columns), 1, task, self._model.dtype)))

    def _check_memory(self, network: FlatModel) -> None:
        for strategy, optimizer in self._uses:
            check_model(Footprint.of(network, strategy, optimizer), strategy, *self._cluster)

    @property
    def rows_at_once(self) -> int:
        """Rows of a rank whose gradient is computed in one go, where it is that of all rows."""
        return rows_at_once(self.placed.train.nbytes / self.rows, self.network.size, sparse=self.signature.sparse)

    def close(self) -> None:
        """Remove what was brought to the workers."""
        self.placed.close()
