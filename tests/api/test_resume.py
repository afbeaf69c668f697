"""``resume`` as users call it: what it refuses, with the remedy, and what it goes on with. Workers are threads of this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
import pytest
from distributed import Client
from numpy.testing import assert_array_equal

import scaleml
from runtime import harness
from scaleml.api.checkpoints import described_model, model_from
from scaleml.checkpoint import Checkpoint, CheckpointError
from scaleml.checkpoint.folder import LocalFolder
from scaleml.linear_model import SGDClassifier
from scaleml.models import MLP, FlatModel, LinearModel, Model, Signature
from scaleml.strategies import AllReduce

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((120, 6)).astype("f4")
Y = np.where(X[:, 0] + X[:, 1] ** 2 > 0.5, "yes", "no")
WEIGHTS = RANDOM.uniform(0.5, 2.0, len(X))
SETTINGS: dict[str, Any] = {"optimizer": scaleml.Adam(0.01), "batch_size": 24, "seed": 3, "validation": 0.25}


@pytest.fixture(scope="module")
def usual(threads: Client) -> tuple[str, scaleml.Run]:
    """A run of two epochs in memory, which all see here, and the run of four that it would have been."""
    url = f"memory://{uuid4().hex}"
    trained(threads, epochs=2, checkpoint=url)
    return url, trained(threads, epochs=4)


def trained(client: Client, model: Any = None, **more: Any) -> scaleml.Run:
    model = MLP((4,)) if model is None else model
    return scaleml.train(model, X, Y, client=client, **{**SETTINGS, **more})


def test_a_run_trains_on_where_it_ended(usual: tuple[str, scaleml.Run], threads: Client) -> None:
    url, longer = usual
    run = scaleml.resume(url, X=X, y=Y, epochs=4, client=threads, checkpoint=None)
    assert_array_equal(run.params, longer.params)
    assert_array_equal(run.model.predict(X), longer.model.predict(X))
    assert run.history.marks == [(run.history.changes[0].time, f"resumed from step 8 of {url}")]
    assert "resumed from step 8" in run.summary()
    assert_array_equal(run.history.evaluations["step"], [0, 4, 8, 12, 16])
    assert_array_equal(run.history.evaluations["samples"], longer.history.evaluations["samples"])
    assert (np.diff(run.history.evaluations["time"]) > 0).all()
    assert run.plan.optimizer == SETTINGS["optimizer"]


def test_who_goes_on_from_an_older_one_does_not_lose_the_newer(threads: Client, tmp_path: Path) -> None:
    trained(threads, epochs=2, checkpoint=Checkpoint(tmp_path, every=1))
    older, newer = sorted(tmp_path.glob("step-*"))
    given = {"X": X, "y": Y, "epochs": 3, "client": threads}
    with pytest.raises(CheckpointError, match=f"{newer.name} beside it is newer, and would be removed in time"):
        scaleml.resume(older, **given)
    run = scaleml.resume(older, **given, checkpoint=tmp_path / "branch")
    assert run.history.marks[0][1] == f"resumed from step 4 of {tmp_path}"
    assert sorted(tmp_path.glob("step-*")) == [older, newer]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, r"the run is over, after 2 epochs: pass epochs=3 or more to train on"),
        ({"epochs": 2}, r"the run is over, after 2 epochs"),
        ({"epochs": 2.5}, r"epochs=2.5: must be a positive integer"),
        ({"epochs": 3, "X": None}, r"a checkpoint holds no data: pass the same X"),
        ({"epochs": 3, "X": X[:, :5]}, r"the data are others: columns 5, in the checkpoint 6"),
        ({"epochs": 3, "X": X[:100], "y": Y[:100]}, r"the data are others: rows 75, in the checkpoint 90"),
        ({"epochs": 3, "y": np.char.upper(Y)}, r"labels \['NO', 'YES'\], in the checkpoint \['no', 'yes'\]"),
        ({"epochs": 3, "X": X[::-1].copy(), "y": Y[::-1].copy()}, r"are not those that the checkpoint's run was trained on"),
        ({"epochs": 3, "sample_weight": WEIGHTS}, r"are not those that the checkpoint's run was trained on"),
        ({"epochs": 3, "validation": 0.5}, r"the data are others: rows 60"),
        ({"epochs": 3, "model": MLP((5,))}, r"model=MLP\(.*\(5,\)\), but the run was of MLP\(.*\(4,\)\): pass that"),
        ({"epochs": 3, "workers": 3}, r"workers=3: the run's data is cut into 2 shards"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_the_same_is_refused(
    usual: tuple[str, scaleml.Run], threads: Client, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        scaleml.resume(usual[0], **{"X": X, "y": Y, "client": threads, "checkpoint": None, **given})
    assert isinstance(raised.value, CheckpointError) or "epochs" in said


def test_a_folder_of_another_run_is_not_written_to(usual: tuple[str, scaleml.Run], threads: Client) -> None:
    with pytest.raises(
        CheckpointError, match=r"holds checkpoints of another run, .*: go on from it with scaleml.resume"
    ):
        trained(threads, checkpoint=usual[0])
    other = f"memory://{uuid4().hex}"
    trained(threads, epochs=1, checkpoint=other)
    with pytest.raises(CheckpointError, match=r"holds checkpoints of another run"):
        scaleml.resume(usual[0], X=X, y=Y, epochs=3, client=threads, checkpoint=other)


def test_a_stopped_run_and_one_of_a_collection_go_on_in_their_folder(threads: Client, tmp_path: Path) -> None:
    lazy = da.from_array(X, chunks=(50, 6)), da.from_array((Y == "yes").astype(int), chunks=50)
    settings = {**SETTINGS, "epochs": 3, "client": threads, "sample_weight": WEIGHTS}
    undisturbed = scaleml.train(LinearModel(class_weight={0: 2.0}), *lazy, **settings)
    run = scaleml.start(LinearModel(class_weight={0: 2.0}), *lazy, checkpoint=tmp_path, **settings)
    assert harness.await_condition(lambda: run.state != "starting")
    run.stop()
    if run.state == "stopped":
        run = scaleml.resume(tmp_path, None, *lazy, sample_weight=WEIGHTS, client=threads)
    assert_array_equal(run.params, undisturbed.params)
    assert len(list(tmp_path.glob("*/manifest.json"))) in (1, 2)


def test_an_estimator_is_given_again_and_goes_on_with_its_own_steps(threads: Client, tmp_path: Path) -> None:
    estimator = SGDClassifier(loss="log_loss", penalty="l1", max_iter=4, tol=None, random_state=2)
    settings = {"client": threads, "strategy": AllReduce()}
    undisturbed = scaleml.train(estimator, X, Y, **settings)
    scaleml.train(estimator, X, Y, epochs=2, checkpoint=tmp_path, **settings)
    with pytest.raises(CheckpointError, match=r"the run was of an estimator.*: pass the same as model="):
        scaleml.resume(tmp_path, X=X, y=Y, epochs=4, client=threads)
    run = scaleml.resume(tmp_path, estimator, X, Y, epochs=4, client=threads)
    assert run.plan.steps is not None
    assert_array_equal(run.params, undisturbed.params)
    assert_array_equal(run.estimator.coef_, undisturbed.estimator.coef_)


@dataclass(frozen=True, repr=False)
class OwnModel(Model):
    """A model of a user's own, which no checkpoint can make again."""

    hidden: int = 4
    dtype: str = "float32"
    is_classifier = True

    def build(self, signature: Signature) -> FlatModel:
        return MLP((self.hidden,)).build(signature)


def test_a_model_of_ones_own_is_given_again_and_compared(threads: Client, tmp_path: Path) -> None:
    undisturbed = trained(threads, OwnModel(), epochs=3)
    trained(threads, OwnModel(), epochs=2, checkpoint=tmp_path)
    given = {"X": X, "y": Y, "epochs": 3, "client": threads}
    with pytest.raises(CheckpointError, match=r"the run was of an? OwnModel, which a checkpoint does not hold"):
        scaleml.resume(tmp_path, **given)
    with pytest.raises(CheckpointError, match="the model's parameters are others: size 41, in the checkpoint 33"):
        scaleml.resume(tmp_path, OwnModel(5), **given)
    run = scaleml.resume(tmp_path, OwnModel(), **given)
    assert_array_equal(run.params, undisturbed.params)
    assert_array_equal(run.model.predict(X), undisturbed.model.predict(X))


def test_what_no_manifest_can_hold_is_refused_before_the_start(threads: Client, tmp_path: Path) -> None:
    def score(estimator: Any, X: Any, y: Any) -> float:
        return 0.0

    @dataclass(frozen=True)
    class Own(scaleml.SGD):
        pass

    with pytest.raises(CheckpointError, match="score by one of scikit-learn's names"):
        trained(threads, scoring=score, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="a manifest cannot hold it"):
        trained(threads, optimizer=Own(0.1), checkpoint=tmp_path)
    with pytest.raises(TypeError, match="checkpoint=3: must be a folder's path or url"):
        trained(threads, checkpoint=3)
    with pytest.raises(TypeError, match=r"compare\(\) has no setting 'checkpoint'"):
        scaleml.compare(LinearModel(), X, Y, [AllReduce()], checkpoint=tmp_path)  # type: ignore[call-arg]
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_written_is_warned_of(
    threads: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = LocalFolder.write

    def forbidden(self: LocalFolder, name: str, data: bytes) -> None:
        if "step-" in name:
            raise PermissionError(13, "Permission denied")
        write(self, name, data)

    monkeypatch.setattr(LocalFolder, "write", forbidden)
    with pytest.warns(
        UserWarning, match=r"checkpoint step-.* not written by rank .: Permission denied.*the run itself went on"
    ):
        run = trained(threads, epochs=1, checkpoint=Checkpoint(tmp_path, every=0.5))
    assert run.state == "finished"
    assert list(tmp_path.glob("*/manifest.json")) == []


@pytest.mark.parametrize(
    "model",
    [
        LinearModel("hinge", penalty=None, alpha=0.1, class_weight={0: 1.5, 1: 2.0}),
        LinearModel(class_weight={"no": 2.0}),
        MLP((4, 3), activation="tanh", class_weight="balanced"),
        LinearModel(class_weight=(1.0, 2.0)),
    ],
    ids=repr,
)
def test_models_are_made_again_from_plain_values(model: Model) -> None:
    assert model_from(described_model(model)) == model
