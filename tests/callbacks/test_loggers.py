"""Loggers: what the real libraries write to a local folder, read back, is what the run's history says."""

from __future__ import annotations

import io
import logging
import pickle
import sys
from pathlib import Path

import pytest

from callbacks.logged import EXPECTED, compared, logged, rounded
from scaleml.callbacks import MLflow, TensorBoard, Tqdm, Wandb
from scaleml.callbacks.tensorboard import fresh
from scaleml.telemetry.place import Place

# TensorBoard


def events(folder: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard")
    read = accumulator.EventAccumulator(str(folder), size_guidance={accumulator.TENSORS: 0})
    read.Reload()
    return read


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.plugins.hparams import metadata
    from tensorboard.util.tensor_util import make_ndarray

    run = logged(TensorBoard(tmp_path / "logs"), state="failed")
    assert [folder.name for folder in (tmp_path / "logs").iterdir()] == ["AllReduce()"]
    read = events(tmp_path / "logs" / "AllReduce()")
    tags = read.summary_metadata
    scalars = [tag for tag, facts in tags.items() if facts.plugin_data.plugin_name == "scalars"]
    lines = {
        tag: {event.step: make_ndarray(event.tensor_proto).item() for event in read.Tensors(tag)} for tag in scalars
    }
    assert rounded(lines) == rounded(EXPECTED)
    texts = {tag: make_ndarray(read.Tensors(tag)[0].tensor_proto).item().decode() for tag in ("changes", "summary")}
    assert texts["changes"] == "learning_rate=0.01"
    assert "state: failed" in texts["summary"]
    assert run.summary() in texts["summary"]
    start = metadata.parse_session_start_info_plugin_data(tags[metadata.SESSION_START_INFO_TAG].plugin_data.content)
    assert start.hparams["strategy"].string_value == "AllReduce()"
    assert start.hparams["learning_rate"].number_value == 0.1
    end = metadata.parse_session_end_info_plugin_data(tags[metadata.SESSION_END_INFO_TAG].plugin_data.content)
    assert end.status == 2, "failed"


def test_each_run_has_a_folder_of_its_own(tmp_path):
    pytest.importorskip("tensorboard")
    board = TensorBoard(str(tmp_path))
    for number in (0, 1):
        logged(board, place=Place("c0", 1, "round", number, 5), label="LocalSGD(8)/../x")
    logged(board, place=Place("c0", 1, "round", 0, 5), label="LocalSGD(8)/../x")
    names = sorted(folder.name for folder in tmp_path.iterdir())
    assert names == [f"LocalSGD(8)_.._x, round {n} of 5{more}" for n, more in ((1, ""), (1, " 2"), (2, ""))]
    assert fresh(tmp_path, "/../").parent == tmp_path


def test_tensorboard_has_the_verdict_and_the_table_of_a_comparison(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.util.tensor_util import make_ndarray

    board = TensorBoard(str(tmp_path))
    runs = [logged(board, place=Place("c0", entry, "round", 0, 1), label=f"LocalSGD({entry})") for entry in (0, 1)]
    comparison = compared(runs, board)
    read = events(tmp_path / "comparison c0")
    verdict, table = (make_ndarray(read.Tensors(tag)[0].tensor_proto).item().decode() for tag in ("verdict", "table"))
    assert verdict.startswith(f"**{comparison.verdict.headline}**")
    lines = table.splitlines()
    assert lines[0].startswith("| strategy | workers |")
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| LocalSGD(0)", "| LocalSGD(1)"]


# MLflow


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    for name, value in (("MLFLOW_ALLOW_FILE_STORE", "true"), ("MLFLOW_DISABLE_TELEMETRY", "true")):
        monkeypatch.setenv(name, value)
    found = pytest.importorskip("mlflow")
    # What another test of this process has chosen, or a page of the documentation: it is of a store that is gone.
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    monkeypatch.setattr(found.tracking.fluent, "_active_experiment_id", None)
    found.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield found
    found.set_tracking_uri(None)


def runs_of(mlflow, experiment="Default"):
    client = mlflow.MlflowClient()
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {run.info.run_name: run for run in found}


def metrics_of(mlflow, run):
    client = mlflow.MlflowClient()
    return {
        name: {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
        for name in run.data.metrics
    }


@pytest.mark.parametrize(("state", "status"), [("finished", "FINISHED"), ("stopped", "KILLED"), ("failed", "FAILED")])
def test_mlflow_has_metrics_parameters_tags_and_the_end(mlflow, state, status):
    error = "rank 1 failed" if state == "failed" else None
    logged(MLflow("digits", tags={"who": "me"}), state=state, error=error)
    (name, run), *more = runs_of(mlflow, "digits").items()
    assert (name, more) == ("AllReduce()", [])
    assert rounded(metrics_of(mlflow, run)) == rounded(EXPECTED)
    assert run.data.params == {"strategy": "AllReduce()", "learning_rate": "0.1", "epochs": "3"}
    assert run.info.status == status
    tags = run.data.tags
    assert (tags["who"], tags["scaleml.state"], tags.get("scaleml.error")) == ("me", state, error)
    assert tags["scaleml.change at 0.400 s"] == "learning_rate=0.01"
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/summary.txt")
    assert text == f"it is {state}"
    assert mlflow.active_run() is None


def test_mlflow_uses_the_users_run_and_leaves_it_active(mlflow):
    with mlflow.start_run(run_name="mine") as mine:
        logged(MLflow())
        assert mlflow.active_run().info.run_id == mine.info.run_id
        assert mlflow.MlflowClient().get_run(mine.info.run_id).info.status == "RUNNING"
        mlflow.log_metric("after", 1.0)
    (found,) = runs_of(mlflow).values()
    assert found.info.run_name == "mine"
    assert rounded(metrics_of(mlflow, found)) == rounded(EXPECTED) | {"after": {0: 1.0}}


@pytest.mark.parametrize("own", [False, True])
def test_mlflow_nests_the_runs_of_a_comparison(mlflow, own):
    logger = MLflow("digits")
    places = [Place("c0", entry, "round", 0, 2) for entry in (0, 1)]

    def told():
        return compared([logged(logger, place=place, label=f"LocalSGD({place.entry})") for place in places], logger)

    if own:
        mlflow.set_experiment("digits")
        with mlflow.start_run(run_name="mine"):
            comparison = told()
            assert mlflow.active_run() is not None
    else:
        comparison = told()
    found = runs_of(mlflow, "digits")
    parent = found.pop("mine" if own else "comparison c0")
    assert set(found) == {"LocalSGD(0), round 1 of 2", "LocalSGD(1), round 1 of 2"}
    for child in found.values():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["scaleml.entry"] == child.data.params["strategy"][-2]
        assert rounded(metrics_of(mlflow, child)) == rounded(EXPECTED)
    assert parent.data.tags["scaleml.verdict"] == comparison.verdict.headline
    assert mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/comparison.txt") == str(comparison)
    table = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/comparison.csv").splitlines()
    assert [line.split(",")[0] for line in table] == ["strategy", "LocalSGD(0)", "LocalSGD(1)"]
    assert parent.info.status == "FINISHED"
    assert parent.info.end_time >= max(child.info.end_time for child in found.values())


# tqdm


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_a_bar_of_tqdm_goes_from_no_row_to_all(state, no_leaks):
    pytest.importorskip("tqdm")
    screen = io.StringIO()
    logged(Tqdm(file=screen), state=state, place=Place("c0", 0, "warm-up"))
    shown = screen.getvalue().split("\r")
    assert any("0/64.0" in line for line in shown)
    assert any("32.0/64.0" in line and "loss=0.75, held-out=0.5" in line for line in shown)
    assert "100%" in shown[-1]
    assert "64.0/64.0" in shown[-1]
    assert "held-out=0.1]" in shown[-1]
    assert shown[-1].startswith("AllReduce(), warm-up" + (": failed:" if state == "failed" else ":"))
    assert shown[-1].endswith("\n")


# All of them


ALL = {
    "tensorboard": TensorBoard,
    "mlflow": lambda folder: MLflow("digits", tags={"who": "me"}),
    "wandb": lambda folder: Wandb("digits", settings={"mode": "offline"}),
    "tqdm": lambda folder: Tqdm(),
}


@pytest.mark.parametrize("package", ALL)
def test_settings_travel_and_say_how_they_are_made(package, tmp_path):
    pytest.importorskip(package)
    made = ALL[package](str(tmp_path))
    assert pickle.loads(pickle.dumps(made)) == made
    assert eval(repr(made)) == made


@pytest.mark.parametrize("package", ALL)
def test_without_its_package_it_says_what_to_install(package, tmp_path, monkeypatch):
    for name in (package, f"{package}.auto", "tensorboard.summary.writer.event_file_writer"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"needs the package {package}: pip install {package}"):
        ALL[package](str(tmp_path))


def test_a_logger_that_cannot_write_hurts_nobody(tmp_path, caplog):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.ERROR), pytest.warns(RuntimeWarning, match="on_start raised NotADirectoryError"):
        assert logged(TensorBoard(tmp_path / "file" / "logs")).state == "finished"
