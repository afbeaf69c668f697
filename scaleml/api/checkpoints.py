"""Checkpoints of a run, in the client: whether they can be written, what their manifests say of the run, and what went wrong with them."""

from __future__ import annotations

import hashlib
import json
import secrets
import warnings
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

from distributed import Client

from scaleml import __version__, models
from scaleml.api.settings import Settings
from scaleml.checkpoint import Checkpoint, CheckpointError
from scaleml.checkpoint.catalog import checkpoints_in
from scaleml.checkpoint.folder import open_folder
from scaleml.checkpoint.manifest import MANIFEST
from scaleml.checkpoint.probe import leave_probe, probe, remove_probe
from scaleml.cluster import calls
from scaleml.cluster.placement import Placement
from scaleml.cluster.staging.training_data import TrainingData
from scaleml.escaping import printable
from scaleml.models import Model
from scaleml.models.flat_model import named_parts_of
from scaleml.runtime.plan import Plan
from scaleml.runtime.saving import Saving
from scaleml.runtime.serialization import describe
from scaleml.telemetry.history import History

_PATIENCE: Final = 60.0
"""Seconds for a worker to look into the folder."""
_NOTE: Final = "checkpoint"
"""The kind of a history's changes that tell of checkpoints."""


def with_checkpoints(plan: Plan, placement: Placement, settings: Settings, data: TrainingData, client: Client) -> Plan:
    """Return the plan of a run that writes checkpoints, where it is to.

    Raises
    ------
    CheckpointError
        Where that cannot work: a folder in which not all can write, or settings that no manifest can hold.
    """
    checkpoint, origin = settings.checkpoint, settings.origin
    plan = replace(plan, origin=origin)
    if checkpoint is None:
        return plan
    url = checkpoint.place
    about = _about(plan, settings, data, checkpoint)
    check_place(url, placement, client)
    return replace(
        plan,
        saving=Saving(
            url,
            secrets.token_hex(8),
            __version__,
            about,
            epochs=checkpoint.epochs,
            seconds=checkpoint.seconds,
            keep=checkpoint.keep,
            base=origin.name if origin is not None and origin.url == url else None,
        ),
    )


def check_here(checkpoint: Checkpoint | None, origin: str = "") -> None:
    """Raise CheckpointError unless the client can write into the folder, and it is empty, or that of ``origin``; before anything else."""
    if checkpoint is None:
        return
    url, token = checkpoint.place, secrets.token_hex(8)
    leave_probe(url, token)
    remove_probe(url, token)
    folder = open_folder(url)
    there = [name for name in checkpoints_in(folder) if url != origin and MANIFEST in folder.names(name)]
    if there:
        raise CheckpointError(
            f"checkpoint={url!r} holds checkpoints of another run, the newest of them {there[-1]}: go on from it with scaleml.resume, "
            "give another folder, or remove it first"
        )


def check_place(url: str, placement: Placement, client: Client) -> None:
    """Raise CheckpointError unless all workers of a run can write into the folder, and see there what the client writes."""
    token = secrets.token_hex(8)
    leave_probe(url, token)
    try:
        found = calls.on_workers(client, _PATIENCE, probe, url, token, workers=placement.workers, on_error="return")
        for address, wrong in found.items():
            if wrong:
                raise CheckpointError(
                    f"checkpoint={url!r} cannot be used on worker {address}: {printable(str(wrong))}. Give a folder that this process "
                    "and all workers can write to and see alike: one that their hosts share, or an object store's such as s3://bucket/run"
                )
    finally:
        remove_probe(url, token)


def told_of(history: History) -> None:
    """Warn of checkpoints that could not be written, of which the history tells."""
    lost = [change.text for change in history.changes if change.kind == _NOTE and "not written" in change.text]
    if lost:
        warnings.warn(f"{lost[0]}{_more(len(lost) - 1)}; the run itself went on", stacklevel=3)


def _more(count: int) -> str:
    return f" (and {count} more, see run.history.marks)" if count else ""


# What the manifest says of the run.


def _about(plan: Plan, settings: Settings, data: TrainingData, checkpoint: Checkpoint) -> dict[str, Any]:
    if callable(settings.scoring):
        raise CheckpointError(
            f"checkpoint= with scoring={settings.scoring!r}: a manifest holds names alone; score by one of scikit-learn's names, such as "
            "'balanced_accuracy'"
        )
    for thing in (plan.strategy, plan.optimizer):
        try:
            json.dumps(describe(thing))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"checkpoint= with {thing!r}: a manifest cannot hold it: {error}") from error
    return {
        "model": described_model(settings.model),
        "is_estimator": settings.fitted is not None,
        "parameters": parameters_of(plan),
        "data": data_facts(data),
        "workers": plan.layout.workers,
        "shards": len(plan.shard_sizes),
        "rows": plan.rows,
        "epochs": plan.epochs,
        "seed": plan.seed,
        "microbatch": settings.microbatch,
        "scoring": settings.scoring,
        "on_nonfinite": settings.on_nonfinite,
        "label": settings.label or repr(settings.strategy),
        "given": dict(settings.given),
        "every": checkpoint.every,
        "keep": checkpoint.keep,
    }


def parameters_of(plan: Plan) -> dict[str, Any]:
    """Return what tells the parameters of a model from those of another: how many, of which type, and a digest of their names."""
    names = [[name, part.start, part.stop] for name, part in named_parts_of(plan.model)]
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
    return {"size": plan.model.size, "dtype": plan.model.dtype.name, "names": digest}


def data_facts(data: TrainingData) -> dict[str, Any]:
    """Return what is known of the rows without looking at them; `scaleml.data.fingerprint` has looked at some."""
    signature, held_out = data.signature, data.placed.held_out
    classes = None if data.classes is None else [str(label) for label in data.classes.tolist()]
    return {
        "rows": data.rows,
        "columns": signature.n_features,
        "outputs": signature.n_outputs,
        "task": signature.task,
        "dtype": signature.dtype,
        "sparse": signature.sparse,
        "shape of a row": None if signature.row is None else str(signature.row),
        "shape of a target": None if signature.target is None else str(signature.target),
        "labels": classes if classes is None or len(classes) <= 20 else _digest(classes),
        "held-out rows": 0 if held_out is None else held_out.rows,
    }


def _digest(labels: list[str]) -> str:
    return f"{len(labels)} labels, {hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:16]}"


# Models by name.


def described_model(model: Model) -> dict[str, Any]:
    """Return a model's class, and its settings where it is one of this package that can be made again from plain values."""
    kind = type(model)
    described: dict[str, Any] = {"name": kind.__name__}
    if _is_ours(kind) and is_dataclass(model):
        settings = {one.name: _plain(getattr(model, one.name)) for one in fields(model) if one.init}
        try:
            if json.loads(json.dumps(settings)) == settings:
                described["fields"] = settings
        except TypeError:
            pass  # labels of a kind that JSON does not have
    return described


def model_from(described: Mapping[str, Any]) -> Model | None:
    """Make the model again; None where it has to be given."""
    kind = getattr(models, described["name"], None) if described["name"] in models.__all__ else None
    if "fields" not in described or not (isinstance(kind, type) and issubclass(kind, Model) and _is_ours(kind)):
        return None
    return kind(**{name: _value(value) for name, value in described["fields"].items()})


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("scaleml.models.") and kind.__name__ in models.__all__


def _plain(value: object) -> object:
    if isinstance(value, Mapping):  # JSON would make text of labels that are numbers
        return {"pairs": [[_plain(key), _plain(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _value(value: object) -> object:
    if isinstance(value, dict):
        return {_value(key): _value(item) for key, item in value["pairs"]}
    return tuple(_value(item) for item in value) if isinstance(value, list) else value
