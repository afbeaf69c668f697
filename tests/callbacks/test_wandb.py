"""Weights & Biases and trackio: what they write to a local folder, read back, is what the run's history says."""

from __future__ import annotations

import json
import struct
import threading
from pathlib import Path

import pytest

from callbacks.logged import EXPECTED, compared, logged, rounded
from callbacks.scripted import DEADLINE
from scaleml.callbacks import Wandb
from scaleml.clock import WALL
from scaleml.telemetry.place import Place


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


def test_wandb_has_the_verdict_and_the_table_of_a_comparison(wandb, tmp_path):
    runs = [logged(place=Place("c0", entry, "round", 0, 1), label=f"LocalSGD({entry})") for entry in (0, 1)]
    comparison = compared(runs, Wandb("digits", settings={"mode": "offline", "dir": str(tmp_path)}))
    found = written(tmp_path)
    (run,) = (record.run for record in found if record.HasField("run"))
    assert (run.project, run.display_name, run.run_group) == ("digits", "comparison c0", "comparison c0")
    (point,) = [loads(record.history.item) for record in found if record.HasField("history")]
    assert point["verdict"] == str(comparison.verdict)
    assert point["report"] == str(comparison)
    (file,) = tmp_path.rglob("table_*.table.json")
    table = json.loads(file.read_text())
    assert [row[table["columns"].index("strategy")] for row in table["data"]] == ["LocalSGD(0)", "LocalSGD(1)"]


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
