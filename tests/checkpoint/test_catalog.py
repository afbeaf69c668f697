"""What is whole, what is torn, altered or foreign, and what stays: on a disk, and on a file system of fsspec's."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from scaleml.checkpoint import Checkpoint, CheckpointError
from scaleml.checkpoint.catalog import checkpoints_in, newest, step_folder
from scaleml.checkpoint.folder import open_folder
from scaleml.checkpoint.manifest import Manifest, StoredFile
from scaleml.checkpoint.probe import leave_probe, probe, remove_probe
from scaleml.checkpoint.settings import absolute, as_checkpoint
from scaleml.checkpoint.writer import Job, Writer

RANKS = 3


@pytest.fixture(params=["disk", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "disk" else f"memory://{uuid4().hex}"


def written(url: str, steps: list[int], run: str = "a", keep: int = 100, base: str | None = None) -> list[str]:
    """Have three ranks write so many checkpoints, and return what went wrong."""
    said: list[str] = []
    writers = [
        Writer(url, rank=rank, ranks=RANKS, run=run, version="0", keep=keep, base=base, told=said.append)
        for rank in range(RANKS)
    ]
    for step in steps:
        for rank, writer in enumerate(writers):
            about = None if rank else {"step": step}
            content = f"{run} {step} {rank}".encode() * 100
            writer.put(Job(step_folder(step, "ab"), {f"rank-{rank}.safetensors": lambda c=content: c}, {}, about))  # type: ignore[misc]
        for writer in writers:
            writer.wait()
    for writer in writers:
        writer.close(10.0)
    return said


def test_the_newest_is_found_and_old_ones_go(url: str) -> None:
    assert written(url, [10, 20, 30, 40], keep=2) == []
    folder = open_folder(url)
    assert checkpoints_in(folder) == ["step-00000030-ab", "step-00000040-ab"]
    found = newest(url)
    assert (found.manifest.name, found.refused, found.manifest.about["step"]) == ("step-00000040-ab", (), 40)
    assert sorted(folder.names("step-00000040-ab")) == ["manifest.json", *(f"rank-{r}.safetensors" for r in range(3))]
    assert found.manifest.content(folder, "rank-1.safetensors") == b"a 40 1" * 100
    assert newest(f"{url}/step-00000030-ab").manifest.about["step"] == 30, "one may be named"


def damaged(url: str, name: str, change: Callable[[bytes], bytes]) -> None:
    folder = open_folder(url)
    path = f"step-00000020-ab/{name}"
    folder.write(path, change(folder.read(path)))


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def other_version(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "version": 9}).encode()


def other_content(data: bytes) -> bytes:
    plain = json.loads(data)
    plain["about"]["step"] = 7
    return json.dumps(plain).encode()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("rank-1.safetensors", lambda data: data[:50], "rank-1.safetensors is torn: it has 50 bytes of 600"),
        ("rank-2.safetensors", flipped, "rank-2.safetensors is altered"),
        ("rank-0.safetensors", None, "rank-0.safetensors is missing"),
        ("manifest.json", None, "manifest.json is missing: the checkpoint was not finished"),
        ("manifest.json", lambda data: data[:-30], "manifest.json is torn or altered: it is no JSON"),
        ("manifest.json", lambda data: b'{"format": "pt"}', "manifest.json is foreign"),
        ("manifest.json", lambda data: b"[]", "manifest.json is foreign"),
        ("manifest.json", other_version, "manifest.json is of format 9, by scaleml '0'; this one reads format 1"),
        ("manifest.json", other_content, "manifest.json is altered"),
    ],
)
def test_a_bad_one_is_refused_by_name_and_the_last_good_one_is_used(
    url: str, name: str, change: Callable[[bytes], bytes] | None, said: str
) -> None:
    written(url, [10, 20])
    if change is None:
        open_folder(url).remove(f"step-00000020-ab/{name}")
    else:
        damaged(url, name, change)
    found = newest(url)
    assert found.manifest.name == "step-00000010-ab"
    (refused,) = found.refused
    assert refused.startswith(f"step-00000020-ab/{said}")
    with pytest.raises(CheckpointError, match="step-00000020-ab"):
        newest(f"{url}/step-00000020-ab")
    open_folder(url).remove("step-00000010-ab")
    with pytest.raises(CheckpointError, match=r"holds no good checkpoint: step-00000020-ab.*Give another folder"):
        newest(url)


def test_a_manifest_names_no_files_of_others(url: str) -> None:
    written(url, [10])
    bad = Manifest("step-00000010-ab", "a", "now", "0", {"../../passwd": StoredFile(1, "")}, {})
    open_folder(url).write("step-00000010-ab/manifest.json", bad.to_bytes())
    with pytest.raises(CheckpointError, match="foreign: it names files that are none of a checkpoint's"):
        newest(url)


def test_who_goes_on_from_an_older_one_keeps_that_until_its_own_are_there(url: str) -> None:
    written(url, [10, 20, 30])
    damaged(url, "rank-1.safetensors", flipped)
    open_folder(url).write("step-00000040-cd/rank-0.safetensors", b"of a run that was killed")
    written(url, [15], run="b", keep=2, base="step-00000010-ab")
    assert checkpoints_in(open_folder(url)) == ["step-00000010-ab", "step-00000015-ab"]
    assert newest(url).manifest.about["step"] == 15
    assert newest(url, run="a").manifest.about["step"] == 10


def test_an_empty_folder_and_one_that_is_not_there(url: str) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint: give the folder that checkpoint= was given"):
        newest(url)
    with pytest.raises(CheckpointError, match=r"fsspec knows no such place.*nowhere"):
        newest("nowhere://folder")


def test_a_writer_that_is_closed_waits_for_nobody(url: str) -> None:
    said: list[str] = []
    writer = Writer(url, rank=0, ranks=2, run="a", version="0", keep=2, base=None, told=said.append)
    writer.put(Job(step_folder(10, "ab"), {"rank-0.safetensors": lambda: b"mine"}, {}, {"step": 10}))
    assert writer.is_busy
    writer.close(10.0)
    assert (said, checkpoints_in(open_folder(url))) == ([], []), "half of one is none"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scaleml-checkpoint")]


def test_a_probe_tells_what_others_do_not_see(url: str) -> None:
    leave_probe(url, "t")
    assert probe(url, "t") == ""
    assert probe(url, "u") == "it does not see what the client has written there"
    remove_probe(url, "t")
    assert open_folder(url).names() == []


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file: nothing can be written there: File exists"):
        leave_probe(str(tmp_path / "file"), "t")


def test_settings_say_their_rule() -> None:
    assert Checkpoint("s3://b/r", every="1.5 min").seconds == 90.0
    assert Checkpoint("s3://b/r", every="2 hours").seconds == 7200.0
    assert Checkpoint("s3://b/r", every=0.5).epochs == 0.5
    for every in ("soon", "10", "0 s", "5 parsecs", 0, -1, float("nan"), None):
        with pytest.raises(ValueError, match=r"every=.*such as '30 s'"):
            Checkpoint("s3://b/r", every=every)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keep=0: must be a positive integer"):
        Checkpoint("s3://b/r", keep=0)
    with pytest.raises(TypeError, match="url='': must be a path or a url"):
        Checkpoint("")
    with pytest.raises(TypeError, match="checkpoint=5: must be a folder's path or url"):
        as_checkpoint(5)
    assert as_checkpoint(Path("/data/run")) == Checkpoint(Path("/data/run"))
    assert absolute("run") == str(Path.cwd() / "run")
    assert absolute("~/run") == str(Path.home() / "run")
