"""Files that bear their owner's name: what is swept, and what never is."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaleml import owned_files
from scaleml.comm.transport.segment import Segment
from scaleml.data.piece_file import PieceFile
from scaleml.owned_files import OwnedFolder, create, sweep

ROOT = Path(__file__).resolve().parents[1]
OLD = 10**9
"""A time long ago."""
linux = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="needs Linux's process files")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that is used here, and swept."""
    monkeypatch.setattr(owned_files, "MEMORY", tmp_path)
    monkeypatch.setattr(owned_files, "folders", lambda: [tmp_path])
    return tmp_path


@pytest.fixture
def dead() -> Iterator[str]:
    """The owner's part of names of a process that has ended and that its parent has not asked for yet."""
    code = "import os; from scaleml.owned_files import stem; print(stem('data'), flush=True); os.kill(os.getpid(), 9)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        stem = process.stdout.read().strip()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield stem.removeprefix("scaleml-data-")
    assert process.returncode == -9


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def mine(**changed: object) -> str:
    """The owner's part of this process's names, with other facts."""
    facts = dict(zip(("boot", "namespace", "start", "pid"), owned_files._owner(os.getpid()).split("-"), strict=True))
    return "-".join(str(value) for value in {**facts, **changed}.values())


def test_what_a_dead_process_left_goes_and_nothing_else(folder: Path, dead: str) -> None:
    left = [f"scaleml-memory-{dead}-1", f"scaleml-data-{dead}-2", f"sem.scaleml-semaphore-{dead}-x_3"]
    reused = f"scaleml-data-{mine(start=1)}-4"  # its number is ours now
    for name in (*left, reused):
        (folder / name).touch()
    inside = folder / f"scaleml-cluster-{dead}-5" / "worker"
    inside.mkdir(parents=True)
    (inside / "log").touch()
    foreign = [
        "scaleml-data-notes.txt", f"scaleml-data-{dead}", f"other-data-{dead}-1", f"scaleml-data-{mine()}-6",
        f"scaleml-data-{mine(boot='00000000', pid=1)}-7", "scaleml-12-abc",
    ]  # fmt: skip
    for name in foreign:
        (folder / name).touch()
    _, descriptor = create("data", folder)
    kept = names(folder) - {*left, reused, inside.parent.name}
    sweep()
    assert names(folder) == kept
    os.close(descriptor)
    sweep()
    assert names(folder) == kept  # its owner lives, with or without its lock


def test_a_link_is_not_followed_and_another_users_file_stays(
    folder: Path, dead: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path_factory.mktemp("target")
    (target / "precious").touch()
    (folder / f"scaleml-cluster-{dead}-1").symlink_to(target)
    (folder / f"scaleml-data-{dead}-2").symlink_to(target / "precious")
    within = folder / f"scaleml-cluster-{dead}-3"
    within.mkdir()
    (within / "out").symlink_to(target)
    sweep()
    assert names(folder) == {f"scaleml-cluster-{dead}-1", f"scaleml-data-{dead}-2"}
    assert names(target) == {"precious"}

    (folder / f"scaleml-data-{dead}-4").touch()
    before = names(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        sweep()
        assert names(folder) == before
    sweep()
    assert names(folder) == before - {f"scaleml-data-{dead}-4"}


@linux
def test_in_another_namespace_the_lock_says_who_lives(folder: Path) -> None:
    for age in ("young", "old"):
        path = folder / f"scaleml-data-{mine(namespace=1)}-{age}"
        path.touch()
        if age == "old":
            os.utime(path, (OLD, OLD))
    file, place = PieceFile(10), OwnedFolder("cluster")
    for own, name in ((Path(file.path), "file"), (place.path, "folder")):
        there = own.rename(own.with_name(f"scaleml-data-{mine(namespace=1)}-{name}"))  # the lock is not the name's
        os.utime(there, (OLD, OLD))
    semaphore = folder / f"sem.scaleml-semaphore-{mine(namespace=1)}-1"  # nobody locks these
    semaphore.touch()
    os.utime(semaphore, (OLD, OLD))
    sweep()
    assert {name.rpartition("-")[2] for name in names(folder)} == {"young", "file", "folder", "1"}
    file.close()
    place.close()
    sweep()
    assert {name.rpartition("-")[2] for name in names(folder)} == {"young", "1"}


FORKS = """
import os, sys
from pathlib import Path
from scaleml import owned_files
owned_files.MEMORY = Path(sys.argv[1])
owned_files.folders = lambda: [Path(sys.argv[1])]
from scaleml.comm.transport.segment import Segment
from scaleml.data.piece_file import PieceFile
from scaleml.owned_files import OwnedFolder, sweep

made = [PieceFile(10), Segment.create(4096), OwnedFolder("cluster")]
paths = [str(thing.path) for thing in made]
ours, theirs = os.pipe()
child = os.fork()
if child == 0:
    made[1].unlink()
    sys.exit(0)  # as a helper does that was forked: with all that is due at an exit
os.waitpid(child, 0)
assert all(map(os.path.exists, paths)), "the child took them along"
if os.fork() == 0:
    os.close(theirs)
    os.read(ours, 1)  # until its parent is gone
    sweep()
    print(*map(os.path.exists, paths), flush=True)
    os._exit(0)
os.kill(os.getpid(), 9)
"""


@linux
def test_forked_children_neither_take_files_along_nor_lose_what_they_still_hold(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKS), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == -9, done.stderr
    assert done.stdout.split() == ["True", "True", "True"]
    assert len(names(folder)) == 3
    sweep()  # now that the child has ended, too
    assert names(folder) == set()


def test_what_is_closed_is_gone(folder: Path) -> None:
    segment, file, place = Segment.create(100), PieceFile(10), OwnedFolder("cluster")
    assert segment is not None
    assert len(names(folder)) == 3
    assert all((folder / name).stat().st_mode & 0o077 == 0 for name in names(folder))
    (place.path / "log").touch()
    segment.unlink()
    file.close()
    place.close()
    assert names(folder) == set()
