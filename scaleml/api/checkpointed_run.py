"""A run as its checkpoint knows it: its settings, and whether the model and the data that are given now are those of then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, final

from distributed import Client

from scaleml.api.checkpoints import data_facts, described_model, model_from, parameters_of
from scaleml.api.trainable import Given
from scaleml.checkpoint import Checkpoint, CheckpointError
from scaleml.checkpoint.catalog import Found, newest
from scaleml.checks import check_integer
from scaleml.cluster import calls
from scaleml.cluster.current_client import current_client
from scaleml.cluster.embedded import is_embedded
from scaleml.cluster.placement import Workers
from scaleml.cluster.staging.training_data import TrainingData
from scaleml.models import Model
from scaleml.optim import Optimizer
from scaleml.runtime.plan import Plan
from scaleml.runtime.restart import origin_of
from scaleml.runtime.saving import Origin
from scaleml.runtime.serialization import Description, optimizer_from, strategy_from
from scaleml.strategies import Strategy

Made = TypeVar("Made")
_KNOWN: Final = (
    *(
        "step",
        "epoch",
        "clock",
        "over",
        "evaluations",
        "ranks",
        "model",
        "is_estimator",
        "parameters",
        "data",
        "workers",
        "shards",
    ),
    *(
        "epochs",
        "seed",
        "batch_size",
        "microbatch",
        "scoring",
        "on_nonfinite",
        "label",
        "given",
        "every",
        "keep",
        "strategy",
        "optimizer",
    ),
)
"""What a manifest says of its run."""


@final
@dataclass(frozen=True)
class CheckpointedRun:
    """The run that wrote a checkpoint, and whether what is given may go on with it.

    Parameters
    ----------
    found : Found
        The checkpoint.
    """

    found: Found

    def __post_init__(self) -> None:
        missing = [name for name in _KNOWN if name not in self.about]
        if missing:
            raise CheckpointError(
                f"{self.where}/manifest.json is foreign: it does not say {', '.join(missing)}; train anew, or give another folder"
            )

    @property
    def about(self) -> Mapping[str, Any]:
        """What the manifest says."""
        return self.found.manifest.about

    @property
    def strategy(self) -> Strategy:
        """The one in force."""
        return self._made(strategy_from, "strategy")

    @property
    def optimizer(self) -> Optimizer:
        """The one in force."""
        return self._made(optimizer_from, "optimizer")

    def _made(self, make: Callable[[Description], Made], what: str) -> Made:
        try:
            return make(self.about[what])
        except (KeyError, TypeError, ValueError) as error:
            by = self.found.manifest.scaleml
            raise CheckpointError(
                f"{self.where}: this version of scaleml cannot make its {what} again, which scaleml {by} wrote ({error}): install that one"
            ) from error

    @property
    def where(self) -> str:
        """The checkpoint in words."""
        return f"{self.found.folder.url}/{self.found.manifest.name}"

    @property
    def words(self) -> str:
        """What the history says."""
        return f"resumed from step {self.about['step']} of {self.found.folder.url}"

    @property
    def origin(self) -> Origin:
        """What ranks are told."""
        return origin_of(self.found)

    def checkpoint(self) -> Checkpoint:
        """Return where and how often it was written."""
        return Checkpoint(self.found.folder.url, self.about["every"], self.about["keep"])

    def refuse_newer_ones(self) -> None:
        """Raise CheckpointError where going on in the same folder would remove a newer good one: who names an older one leaves the way."""
        latest = newest(self.found.folder.url).manifest.name
        if latest != self.found.manifest.name:
            raise CheckpointError(
                f"{self.where}: {latest} beside it is newer, and would be removed in time: pass checkpoint=None or another folder, "
                "or remove it first"
            )

    def refuse_nothing_to_do(self, epochs: int | None) -> None:
        """Raise CheckpointError for a run that has had all epochs."""
        if epochs is not None:
            check_integer("epochs", epochs, 1, rule="a positive integer: how many in all, those before included")
        had, wanted = self.about["epoch"], self.about["epochs"] if epochs is None else epochs
        if (self.about["over"] and epochs is None) or wanted <= had:
            ended = "is over" if self.about["over"] else "had come that far"
            raise CheckpointError(
                f"{self.where}: the run {ended}, after {had:g} epochs: pass epochs={int(had) + 1} or more to train on"
            )

    def model(self, given: object, X: object) -> object:
        """Return the model to go on with: the one given, which is to be like that before, or that before."""
        described = self.about["model"]
        if given is None:
            given = None if self.about["is_estimator"] else model_from(described)
            if given is None:
                what = "an estimator" if self.about["is_estimator"] else f"a {described['name']}"
                raise CheckpointError(
                    f"{self.where}: the run was of {what}, which a checkpoint does not hold: pass the same as model="
                )
        elif isinstance(given, Model):
            same = described_model(given)
            if same["name"] != described["name"] or same.get("fields") != described.get("fields"):
                was = model_from(described) or f"a {described['name']}"
                raise CheckpointError(
                    f"{self.where}: model={given!r}, but the run was of {was!r}: pass that, or leave it out"
                )
        if X is None:
            raise CheckpointError(
                f"{self.where}: a checkpoint holds no data: pass the same X (and y, sample_weight, validation) as before, "
                "scaleml.resume(url, X=X, y=y)"
            )
        return given

    def workers(self, workers: Workers, client: Client | None) -> Workers:
        """Return the workers to use: those asked for, or as many as there were, if there are so many."""
        had, shards = self.about["workers"], self.about["shards"]
        count = len(workers) if isinstance(workers, list | tuple) else workers
        if isinstance(count, int) and count > shards:
            raise CheckpointError(
                f"workers={count}: the run's data is cut into {shards} shards, and each worker needs one: at most {shards} workers "
                "can go on with it (shards= of train, where their number may grow)"
            )
        if workers is not None:
            return workers
        found = current_client() if client is None else client
        if found is None or is_embedded(found):
            return int(had)
        return min(int(had), len(calls.identity(found)))

    def given(
        self,
        X: object,
        y: object,
        sample_weight: object,
        validation: object,
        epochs: int | None,
        client: Client | None,
        workers: Workers,
    ) -> Given:
        """Return what the user would pass to ``train``."""
        said, about = self.about["given"], self.about
        wanted = about["epochs"] if said["epochs"] is not None or not about["is_estimator"] else None
        return Given(
            *(X, y, sample_weight, said["validation"] if validation is None else validation),
            strategies=[self.strategy],
            optimizers=[self.optimizer if said["has_optimizer"] else None],
            epochs=wanted if epochs is None else epochs,
            batch_size=said["batch_size"],
            seed=about["seed"],
            client=client,
            workers=workers,
        )

    def refuse_other_data(self, data: TrainingData) -> None:
        """Raise CheckpointError where what is known of the rows is not what it was."""
        now, was = data_facts(data), self.about["data"]
        for what, value in now.items():
            if value != was.get(what):
                hint = ": pass validation= as it was" if what == "held-out rows" else ""
                raise CheckpointError(
                    f"{self.where}: the data are others: {what} {value!r}, in the checkpoint {was.get(what)!r}{hint}. Resume with the "
                    "same X, y, sample_weight and validation"
                )

    def refuse_other_parameters(self, plan: Plan) -> None:
        """Raise CheckpointError where the model's parameters are not those that were written."""
        now, was = parameters_of(plan), self.about["parameters"]
        if now != was:
            what = "size" if now["size"] != was["size"] else "dtype" if now["dtype"] != was["dtype"] else "names"
            listed = f"{now[what]!r}, in the checkpoint {was[what]!r}"
            raise CheckpointError(
                f"{self.where}: the model's parameters are others: {what} {listed}. Pass the model of the run"
            )
