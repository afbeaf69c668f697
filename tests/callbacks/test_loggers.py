"""Loggers: what the real libraries write to a local folder, read back, is what the run's history says."""

from __future__ import annotations

import io
import logging
import pickle
import struct
import sys
import threading
from pathlib import Path

import pytest

from callbacks.scripted import DEADLINE, ScriptedRun, ended, follow
from scaleml.callbacks import MLflow, TensorBoard, Tqdm, Wandb
from scaleml.callbacks.tensorboard import fresh
from scaleml.clock import WALL
from scaleml.telemetry.place import Place
from telemetry_fakes import row

# Two ranks, four steps, an evaluation before, after two and at the end; by hand, at the steps 2 and 4.
SHARES = {"compute": 0.06, "wait": 0.02, "comm": 0.01, "apply": 0.01, "other": 0.0}
EXPECTED = {
    "train/loss": {2: (1 / 1 + 1 / 2) / 2, 4: (1 / 3 + 1 / 4) / 2},
    "train/epoch": {2: 0.5, 4: 1.0},
    "train/samples": {2: 32.0, 4: 64.0},
    "train/samples_per_s": {2: 160.0, 4: 160.0},
    "train/seconds": {2: 0.2, 4: 0.4},
    "train/staleness": {2: 1.5, 4: 1.5},
    **{f"time/{name}": {2: value / 0.1, 4: value / 0.1} for name, value in SHARES.items()},
    "held_out/loss": {0: 0.5, 2: 0.5 / 3, 4: 0.1},
    "held_out/accuracy": {0: 0.9, 2: 0.9, 4: 0.9},
}


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Busy machines import slowly."""
    for kind in (MLflow, TensorBoard, Tqdm, Wandb):
        monkeypatch.setattr(kind, "patience", 90.0)


def logged(*callbacks, state="finished", place=None, label="AllReduce()", **facts):
    """Have callbacks told of the run that `EXPECTED` is of."""
    run = ScriptedRun(label=label, workers=2, place=place, total_samples=64, **facts)
    run.parameters["strategy"] = label
    run.evaluation(0)
    for steps in ((1, 2), (3, 4)):
        run.rows(*steps, ranks=2, epoch=steps[1] / 4, staleness=1.5, **SHARES)
        run.history.append_rows([row(2, step=99, time=0.15, samples=999, compute=9)])  # a server trains nothing
        run.evaluation(steps[1])
    run.history.mark(0.4, "learning_rate=0.01", step=4)
    assert ended(run, follow(run, *callbacks), state)
    return run


def rounded(found: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    return {name: {step: round(value, 5) for step, value in line.items()} for name, line in found.items()}


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


# MLflow


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    for name, value in (("MLFLOW_ALLOW_FILE_STORE", "true"), ("MLFLOW_DISABLE_TELEMETRY", "true")):
        monkeypatch.setenv(name, value)
    found = pytest.importorskip("mlflow")
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
    if own:
        mlflow.set_experiment("digits")
        with mlflow.start_run(run_name="mine"):
            for place in places:
                logged(logger, place=place, label=f"LocalSGD({place.entry})")
    else:
        for place in places:
            logged(logger, place=place, label=f"LocalSGD({place.entry})")
    found = runs_of(mlflow, "digits")
    parent = found.pop("mine" if own else "comparison c0")
    assert set(found) == {"LocalSGD(0), round 1 of 2", "LocalSGD(1), round 1 of 2"}
    for child in found.values():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["scaleml.entry"] == child.data.params["strategy"][-2]
        assert rounded(metrics_of(mlflow, child)) == rounded(EXPECTED)
    assert parent.info.status == "FINISHED"
    assert parent.info.end_time >= max(child.info.end_time for child in found.values())


# Weights & Biases


def records(file: Path):
    """Yield the records of a run's file: LevelDB's log format behind seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if at + 7 + length > len(data):  # it is still being written
            return
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


def written(folder: Path):
    """Return all records of the one run in a folder, once wandb's other process has written the last."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    pause, until = threading.Event(), WALL.now() + DEADLINE
    while True:
        found = list(records(file))
        if any(record.HasField("exit") for record in found):
            return found
        assert WALL.now() < until, "the run's file has no end"
        pause.wait(0.01)


def loads(items):
    import json

    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    return pytest.importorskip("wandb")


def test_wandb_writes_every_number_setting_and_the_end(wandb, tmp_path):
    place = Place("c0", 1, "round", 0, 2)
    logger = Wandb("digits", settings={"mode": "offline", "dir": str(tmp_path)})
    logged(logger, state="failed", place=place, error="rank 1 failed")
    found = written(tmp_path)
    (run,) = (record.run for record in found if record.HasField("run"))
    assert (run.project, run.display_name, run.run_group) == ("digits", "AllReduce(), round 1 of 2", "comparison c0")
    config = loads(run.config.update)
    assert (config["strategy"], config["learning_rate"], config["entry"]) == ("AllReduce()", 0.1, 1)
    lines: dict[str, dict[int, float]] = {}
    history = [loads(record.history.item) for record in found if record.HasField("history")]
    for point in history:
        for name in point.keys() & EXPECTED.keys():
            lines.setdefault(name, {})[point["step"]] = point[name]
    assert rounded(lines) == rounded(EXPECTED)
    assert [point["change"] for point in history if "change" in point] == ["learning_rate=0.01"]
    assert [(point["state"], point["error"]) for point in history if "state" in point] == [("failed", "rank 1 failed")]
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [1]


def test_wandb_uses_the_users_run_and_does_not_finish_it(wandb, tmp_path):
    with wandb.init(project="p", mode="offline", dir=tmp_path) as mine:
        logged(Wandb())
        assert wandb.run is mine
        mine.log({"after": 1.0})
        assert mine.config["learning_rate"] == 0.1
    points = [loads(record.history.item) for record in written(tmp_path) if record.HasField("history")]
    assert {name for point in points for name in point} >= {*EXPECTED, "after"}


@pytest.fixture
def trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    return pytest.importorskip("trackio")


def test_trackio_has_the_same_and_its_own_active_run_stays(trackio):
    from trackio.sqlite_storage import SQLiteStorage

    settings = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
    mine = trackio.init("digits", name="mine", **settings)
    logger = Wandb("digits", module="trackio", settings=settings)
    logged(logger, place=Place("c0", 1, "round", 0, 2))
    logged(logger)  # into the active run
    mine.log({"after": 1.0})
    trackio.finish()
    name = "AllReduce(), round 1 of 2"
    assert SQLiteStorage.get_run_config("digits", name)["learning_rate"] == 0.1
    for run in (name, "mine"):
        lines: dict[str, dict[int, float]] = {}
        for point in SQLiteStorage.get_logs("digits", run):
            for each in point.keys() & EXPECTED.keys():
                lines.setdefault(each, {})[point["step"]] = point[each]
        assert rounded(lines) == rounded(EXPECTED)
    assert any("after" in point for point in SQLiteStorage.get_logs("digits", "mine"))


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
