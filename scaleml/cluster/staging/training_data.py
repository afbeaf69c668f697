"""Training data: X and y of one or several runs, checked once, brought to the workers once, whatever kind they are of."""

from __future__ import annotations

from distributed import Client

from scaleml.arrays import Array
from scaleml.clock import WALL
from scaleml.cluster.placement import Workers
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.cluster.staging.stager import ClusterStager
from scaleml.data.class_weights import class_weights
from scaleml.data.partition import RowFormat
from scaleml.data.source import Source
from scaleml.data.training_set import place_training_set
from scaleml.models import FlatModel, Model, Signature


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

    Attributes
    ----------
    signature : Signature
        What the model must know of the data.
    network : FlatModel
        The model built for it.
    classes : array or None
        The labels.
    tally : ClassTally or None
        How often each class occurs; None for numbers.
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
    ) -> None:
        began = WALL.now()
        self._model = model
        form = RowFormat(model.dtype, model.is_classifier, seed)
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
        self.classes = source.classes
        self.signature = Signature(source.features, source.n_outputs, source.task, self._model.dtype, source.is_sparse)
        model, weights = self._model, class_weights(self._model.class_weight, source.classes, counts)
        if weights is not None and model.weighs_classes_apart(self.signature):
            # One class against the rest: each weighs in its own problem, which only the loss knows.
            model, weights = model.with_class_weight(tuple(weights.tolist())), None
        self.network = model.build(self.signature)
        return weights

    def close(self) -> None:
        """Remove what was brought to the workers."""
        self.placed.close()
