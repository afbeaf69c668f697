"""Where stored data lies, and when its files go."""

import errno
import gc
import os
import select
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import leaks
from data.pieces import dense, files, inputs
from scaleml import owned_files
from scaleml.data.piece_file import PieceFile

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("no_file_left")


# Where it lies, and when it goes.


def tight(room: int) -> Any:
    """A `posix_fallocate` for a folder with so many bytes, as a container's small /dev/shm has."""
    real = os.posix_fallocate

    def allocate(fd: int, offset: int, size: int) -> None:
        if "small" in os.readlink(f"/proc/self/fd/{fd}") and size > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, offset, size)

    return allocate


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to know a file by its descriptor")
def test_a_folder_without_room_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    monkeypatch.setattr(owned_files, "folders", lambda: [small, large])
    monkeypatch.setattr(os, "posix_fallocate", tight(10_000))
    modest, big = PieceFile(10_000), PieceFile(10_001)
    assert (Path(modest.path).parent, Path(big.path).parent) == (small, large)
    assert os.path.getsize(big.path) == 10_001
    big.close()
    modest.close()
    assert [*small.iterdir(), *large.iterdir()] == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to know a file by its descriptor")
def test_no_room_anywhere_says_where_and_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tmp_path / "small"
    small.mkdir()
    monkeypatch.setattr(owned_files, "folders", lambda: [small])
    monkeypatch.setattr(os, "posix_fallocate", tight(0))
    with pytest.raises(OSError, match=r"no room for 3,000\.0 MB .*small: No space left.*TMPDIR"):
        PieceFile(3_000_000_000)
    assert list(small.iterdir()) == []


def test_the_temporary_folder_follows_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert owned_files.folders()[-1] == tmp_path


def test_only_its_owner_may_read_it() -> None:
    file = PieceFile(100)
    assert os.stat(file.path).st_mode & 0o777 == 0o600
    file.close()


@pytest.mark.parametrize("end", ["close", "collect"])
def test_the_file_goes_when_it_is_closed_or_collected(end: str) -> None:
    file: PieceFile | None = PieceFile(1000)
    assert file is not None
    path = file.path
    assert os.path.exists(path)
    assert [open_file for open_file in leaks.descriptors() if path in open_file]
    if end == "close":
        file.close()
        file.close()  # once more is no error
    file = None
    gc.collect()
    assert not os.path.exists(path)
    assert not [open_file for open_file in leaks.descriptors() if path in open_file]


def test_a_failed_preparation_leaves_no_file() -> None:
    from scaleml.cluster.staging.client_file import ClientFile

    x = dense(1000)
    x[999, 0] = np.inf
    with pytest.raises(ValueError, match="row 999"):
        ClientFile(inputs(x, np.arange(1000.0)), np.arange(1000), "float32", "X", b"nonce")
    assert files() == []


# Processes that end.

CHILD = """
import os, sys, time
import numpy as np
from scaleml.data.source import array_source
from scaleml.data.piece_file import PieceFile
data = array_source(np.ones((100, 3)), np.ones(100), classifier=False)
file = PieceFile(PieceFile.size(data, np.arange(100), "float32"))
file.write(data, np.arange(100), "float32")
print(file.path, flush=True)
sys.stdin.readline()
"""


def child(code: str, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_the_file_goes_when_its_process_exits() -> None:
    with child(CHILD) as process:
        assert process.stdout is not None
        path = process.stdout.readline().strip()
        assert os.path.exists(path)
        process.communicate("\n", timeout=30)
    assert process.returncode == 0
    assert not os.path.exists(path)


def test_the_files_of_a_killed_process_are_swept_and_those_of_a_living_one_are_not() -> None:
    with child(CHILD) as living, child(CHILD) as dead:
        assert living.stdout is not None
        assert dead.stdout is not None
        kept, lost = living.stdout.readline().strip(), dead.stdout.readline().strip()
        assert os.path.exists(lost)  # afterwards any other process that makes one may have swept already
        dead.kill()
        dead.wait(10)
        PieceFile(1).close()  # whoever makes one sweeps
        assert not os.path.exists(lost)
        assert os.path.exists(kept)
        living.communicate("\n", timeout=30)


MEMORY = """
import sys
import numpy as np
from types import SimpleNamespace
from scaleml.data.source import array_source
from scaleml.data.split import hold_out
from scaleml.cluster.staging.client_file import ClientFile
import scipy.sparse

def peak(what):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(what))

n = 500_000
if sys.argv[1] == "dense":
    x = np.empty((n, 100))
    x.reshape(-1)[:] = 1.5
    size = x.nbytes
else:
    indptr = np.arange(n + 1, dtype="i4") * 66
    x = scipy.sparse.csr_matrix((np.full(n * 66, 2.5), np.tile(np.arange(66, dtype="i4"), n), indptr), (n, 100))
    size = x.data.nbytes + x.indices.nbytes + x.indptr.nbytes
y = np.zeros(n)
with open("/proc/self/clear_refs", "w") as refs:
    refs.write("5")  # the peak starts anew: only what placing adds counts
before = peak("VmRSS")
data = array_source(x, y, classifier=False)
rows, _ = hold_out(n, 0.0, 0)
placed = ClientFile(data, rows, "float32", "X", b"nonce")
print(size, peak("VmHWM") - before, placed.runs[0].nbytes)
placed.close()
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's account of a process's peak")
@pytest.mark.parametrize("matrix", ["dense", "CSR"])
def test_placing_holds_no_second_copy(matrix: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, matrix], capture_output=True, text=True, timeout=100, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    size, grown, stored = map(int, done.stdout.split())
    assert size >= 390e6
    assert stored > 190e6
    assert grown < 0.2 * size + 60e6


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's way of waiting for another's process")
def test_who_follows_a_parent_removes_the_files_of_its_parent() -> None:
    # What the embedded cluster's processes do when the process that owns them is gone, without the cluster.
    code = f"""
    import os, subprocess, sys, time
    environment = dict(os.environ, SCALEML_EMBEDDED_PARENT=str(os.getpid()))
    watch = "from scaleml.cluster.follow_parent import dask_setup; import time; dask_setup(None); print('up', flush=True); time.sleep(100)"
    follower = subprocess.Popen([sys.executable, "-c", watch], env=environment, stdout=subprocess.PIPE)
    assert follower.stdout.readline() == b"up\\n"
    print(follower.pid, flush=True)
    {textwrap.indent(CHILD.strip(), "    ").strip()}
    """
    with child(code) as owner:
        assert owner.stdout is not None
        follower, path = int(owner.stdout.readline()), owner.stdout.readline().strip()
        assert os.path.exists(path)
        life = os.pidfd_open(follower)
        try:
            owner.kill()
            owner.wait(10)
            ended, _, _ = select.select([life], [], [], 30)
        finally:
            os.close(life)
    assert ended, "the follower lives on"
    assert not os.path.exists(path)
