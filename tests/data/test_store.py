"""Data on its way to the workers: what comes out is what NumPy's indexing says, and nothing is left lying about."""

import errno
import gc
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleml import arrays
from scaleml.data import store as stores
from scaleml.data.inputs import Inputs, check_inputs
from scaleml.data.split import hold_out
from scaleml.data.store import Store, array_shard

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = set(files())
    yield
    gc.collect()
    assert set(files()) <= before


def files(owner: int | None = None) -> list[str]:
    """The stores of a process (default: this one) that lie anywhere on this host."""
    mine = f"-{os.getpid() if owner is None else owner}-"
    return [str(p) for folder in stores.folders() for p in folder.glob("scaleml-data-*") if mine in p.name]


def dense(n: int, features: int = 5, dtype: str = "f8") -> np.ndarray:
    return (RNG.standard_normal((n, features)) * 3).astype(dtype)


def sparse(n: int, features: int = 30) -> Any:
    x = scipy.sparse.random(n, features, 0.2, format="csr", random_state=3)
    x.data -= 0.5
    return x


def inputs(x: Any, y: Any, weights: Any = None, *, classifier: bool = False) -> Inputs:
    return check_inputs(x, y, weights, classifier=classifier)


def written(data: Inputs, rows: Any, dtype: str = "float32", shards: int = 1) -> tuple[Store, list[Any]]:
    store = Store(Store.size(data, rows, dtype))
    return store, store.write(data, rows, dtype).cut(shards)


def joined(shards: list[Any]) -> tuple[Any, Any, Any]:
    """All shards one below the other, as this process maps them, copied out of the file."""
    parts = [shard.open() for shard in shards]
    x = np.concatenate([arrays.to_numpy(part[0]) for part in parts])
    weights = None if parts[0][2] is None else np.concatenate([part[2] for part in parts])
    return x, np.concatenate([part[1] for part in parts]), weights


LABELS = np.array(["ant", "bee", "cow"])[np.arange(200) % 3]
KINDS = {
    "dense float64": (dense(200), RNG.standard_normal(200), None, False),
    "dense float32": (dense(200, dtype="f4"), RNG.standard_normal(200), None, False),
    "dense int8": (np.arange(1000, dtype="i1").reshape(200, 5), RNG.standard_normal(200), None, False),
    "dense bool": (dense(200) > 0, RNG.standard_normal(200), None, False),
    "Fortran order": (np.asfortranarray(dense(200)), RNG.standard_normal(200), None, False),
    "strided": (dense(400)[::2, ::-1], RNG.standard_normal(200), None, False),
    "one column": (dense(200, 1), RNG.standard_normal(200), None, False),
    "weights": (dense(200), RNG.standard_normal(200), RNG.random(200), False),
    "three targets": (dense(200), RNG.standard_normal((200, 3)), None, False),
    "two classes": (dense(200), np.arange(200) % 2 == 0, RNG.random(200), True),
    "three classes": (dense(200), LABELS, None, True),
    "CSR": (sparse(200), RNG.standard_normal(200), None, False),
    "CSR, weights and targets": (sparse(200), RNG.standard_normal((200, 2)), RNG.random(200), False),
    "CSC": (sparse(200).tocsc(), LABELS, None, True),
    "CSR without entries": (scipy.sparse.csr_matrix((200, 4)), RNG.standard_normal(200), None, False),
    "CSR array": (scipy.sparse.csr_array(sparse(200)), RNG.standard_normal(200), None, False),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_gives_what_indexing_gives(kind: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_BLOCK", 1000)  # many blocks, also of a small file
    x, y, weights, classifier = KINDS[kind]
    data = inputs(x, y, weights, classifier=classifier)
    rows, _ = hold_out(200, 0.25, seed=5)
    store, shards = written(data, rows, dtype, shards=7)
    got_x, got_y, got_weights = joined(shards)
    expected = (x.toarray() if scipy.sparse.issparse(x) else np.asarray(x))[rows].astype(dtype)
    np.testing.assert_array_equal(got_x, expected)
    assert got_x.dtype == dtype
    if classifier:
        assert [data.classes[int(code)] for code in got_y] == list(np.asarray(y)[rows])
        assert got_y.dtype == (dtype if len(data.classes) == 2 else "int32")
    else:
        np.testing.assert_array_equal(got_y, y[rows].astype(dtype))
    if weights is None:
        assert got_weights is None
    else:
        np.testing.assert_array_equal(got_weights, weights[rows].astype(dtype))
    assert sum(shard.rows for shard in shards) == len(rows)
    assert os.path.getsize(store.path) <= Store.size(data, rows, dtype)
    store.close()


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_rows_in_any_order_cut_anyhow(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    x = sparse(n, 6) if data.draw(st.booleans()) else dense(n, 6)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=40)), np.int64)
    store, shards = written(inputs(x, np.arange(float(n))), rows, shards=data.draw(st.integers(1, len(rows))))
    got_x, got_y, _ = joined(shards)
    store.close()
    np.testing.assert_array_equal(got_x, arrays.to_numpy(x)[rows].astype("f4"))
    assert got_y.tolist() == rows.tolist()
    sizes = [shard.rows for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_two_tables_share_one_file() -> None:
    train, held_out = inputs(dense(50), np.arange(50.0)), inputs(sparse(20), np.arange(20.0), np.ones(20))
    rows = [np.arange(50)[::-1], np.arange(20)]
    store = Store(Store.size(train, rows[0], "float32") + Store.size(held_out, rows[1], "float32"))
    first = store.write(train, rows[0], "float32").cut(2)
    second = store.write(held_out, rows[1], "float32").cut(3)
    store.seal(b"nonce")
    np.testing.assert_array_equal(joined(first)[0], train.x[rows[0]].astype("f4"))
    np.testing.assert_array_equal(joined(second)[0], held_out.x.toarray().astype("f4"))
    assert Path(store.path).read_bytes().endswith(b"nonce")
    store.close()


def test_a_shard_is_a_view_of_the_file_and_cannot_be_written() -> None:
    store, (shard,) = written(inputs(dense(20), np.arange(20.0)), np.arange(20))
    x, y, _ = shard.open()
    assert isinstance(x, np.ndarray)
    assert not x.flags.owndata
    assert not x.flags.writeable
    assert not y.flags.writeable
    store.close()


def test_what_is_mapped_stays_readable_after_the_file_is_gone() -> None:
    data = inputs(dense(20), np.arange(20.0))
    store, (shard,) = written(data, np.arange(20))
    x, _, _ = shard.open()
    store.close()
    np.testing.assert_array_equal(x, data.x.astype("f4"))


def test_shards_through_memory_are_those_through_the_file() -> None:
    for x in (dense(90), sparse(90)):
        data = inputs(x, LABELS[:90], RNG.random(90), classifier=True)
        rows = RNG.permutation(90)
        store, shards = written(data, rows, shards=4)
        for shard in shards:
            mapped = shard.open()
            sent = array_shard(data, rows[shard.start : shard.stop], "float32")
            assert sent.rows == shard.rows
            for here, there in zip(mapped, sent.open(), strict=True):
                assert here.dtype == there.dtype
                np.testing.assert_array_equal(arrays.to_numpy(here), arrays.to_numpy(there))
        store.close()


# What is refused, by its place in the user's data.

BAD = {"NaN": np.nan, "infinite": -np.inf, "too large for float32": 1e39}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("matrix", ["dense", "CSR"])
def test_a_value_that_is_not_finite_is_named_by_row_and_column(value: float, matrix: str) -> None:
    x = dense(500, 7)
    x[417, 5] = value
    data = inputs(scipy.sparse.csr_matrix(x) if matrix == "CSR" else x, np.arange(500.0))
    rows = RNG.permutation(500)
    store = Store(Store.size(data, rows, "float32"))
    with pytest.raises(ValueError, match=r"row 417, column 5 .*float32.*drop or impute"):
        store.write(data, rows, "float32")
    store.close()
    with pytest.raises(ValueError, match="row 417, column 5"):
        array_shard(data, rows, "float32")


def test_what_is_too_large_for_float32_fits_float64() -> None:
    x = dense(10)
    x[3, 2] = 1e39
    store, shards = written(inputs(x, np.arange(10.0)), np.arange(10), "float64")
    np.testing.assert_array_equal(joined(shards)[0], x)
    store.close()


def test_large_values_whose_sum_overflows_are_no_error() -> None:
    x = np.full((50, 4), 3e38)
    store, shards = written(inputs(x, np.arange(50.0)), np.arange(50))
    np.testing.assert_array_equal(joined(shards)[0], x.astype("f4"))
    store.close()


def test_only_the_rows_asked_for_are_looked_at() -> None:
    x = dense(20)
    x[3] = np.nan
    store, shards = written(inputs(x, np.arange(20.0)), np.arange(4, 20))
    np.testing.assert_array_equal(joined(shards)[0], x[4:].astype("f4"))
    store.close()


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
    monkeypatch.setattr(stores, "folders", lambda: [small, large])
    monkeypatch.setattr(os, "posix_fallocate", tight(10_000))
    modest, big = Store(10_000), Store(10_001)
    assert (Path(modest.path).parent, Path(big.path).parent) == (small, large)
    assert os.path.getsize(big.path) == 10_001
    big.close()
    modest.close()
    assert [*small.iterdir(), *large.iterdir()] == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to know a file by its descriptor")
def test_no_room_anywhere_says_where_and_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tmp_path / "small"
    small.mkdir()
    monkeypatch.setattr(stores, "folders", lambda: [small])
    monkeypatch.setattr(os, "posix_fallocate", tight(0))
    with pytest.raises(OSError, match=r"no room for 3\.00 GB .*small: No space left.*TMPDIR"):
        Store(3_000_000_000)
    assert list(small.iterdir()) == []


def test_the_temporary_folder_follows_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert stores.folders()[-1] == tmp_path


def test_only_its_owner_may_read_it() -> None:
    store = Store(100)
    assert os.stat(store.path).st_mode & 0o777 == 0o600
    store.close()


@pytest.mark.parametrize("end", ["close", "collect"])
def test_the_file_goes_when_it_is_closed_or_collected(end: str) -> None:
    store: Store | None = Store(1000)
    assert store is not None
    path, descriptors = store.path, len(os.listdir("/proc/self/fd"))
    assert os.path.exists(path)
    if end == "close":
        store.close()
        store.close()  # once more is no error
    store = None
    gc.collect()
    assert not os.path.exists(path)
    assert len(os.listdir("/proc/self/fd")) == descriptors - 1


def test_a_failed_preparation_leaves_no_file() -> None:
    from scaleml.engine.placing import PlacedData

    x = dense(1000)
    x[999, 0] = np.inf
    placed = PlacedData(inputs(x, np.arange(1000.0)), None, np.arange(1000), None, "float32")
    with pytest.raises(ValueError, match="row 999"):
        placed.prepare()
    assert files() == []


# Processes that end.

CHILD = """
import os, sys, time
import numpy as np
from scaleml.data.inputs import check_inputs
from scaleml.data.store import Store
data = check_inputs(np.ones((100, 3)), np.ones(100), classifier=False)
store = Store(Store.size(data, np.arange(100), "float32"))
store.write(data, np.arange(100), "float32")
print(store.path, flush=True)
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
        dead.kill()
        dead.wait(10)
        assert os.path.exists(lost)
        Store(1).close()  # whoever makes a store sweeps
        assert not os.path.exists(lost)
        assert os.path.exists(kept)
        stores.sweep(living.pid)  # by name of the owner, alive or not
        assert not os.path.exists(kept)
        living.communicate("\n", timeout=30)


def test_a_file_of_someone_elses_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "folders", lambda: [tmp_path])
    others = ["scaleml-data-notes.txt", "scaleml-data-99999999-abc", "other-99999999-1"]  # no, or another, namespace
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / f"{stores._prefix()}99999999-abc").touch()
    stores.sweep()
    gone = {f"{stores._prefix()}99999999-abc"}
    if stores._prefix() == stores.PREFIX:  # no namespaces on this system
        gone.add(others[1])
    assert {path.name for path in tmp_path.iterdir()} == set(others) - gone


MEMORY = """
import sys
import numpy as np
from types import SimpleNamespace
from scaleml.data.inputs import check_inputs
from scaleml.data.split import hold_out
from scaleml.engine.placing import PlacedData
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
data = check_inputs(x, y, classifier=False)
rows, _ = hold_out(n, 0.0, 0)
placed = PlacedData(data, None, rows, None, "float32")
placed.prepare()
print(size, peak("VmHWM") - before, placed.nbytes)
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


def test_the_watchdog_removes_the_files_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the embedded cluster's processes do when the process that owns them is gone, without the cluster.
    code = f"""
    import os, subprocess, sys, time
    environment = dict(os.environ, SCALEML_EMBEDDED_PARENT=str(os.getpid()), SCALEML_EMBEDDED_FOLDER="")
    watch = "from scaleml.engine import watchdog; import time; watchdog.dask_setup(None); print('up', flush=True); time.sleep(100)"
    follower = subprocess.Popen([sys.executable, "-c", watch], env=environment, stdout=subprocess.PIPE)
    follower.stdout.readline()
    print(follower.pid, flush=True)
    {textwrap.indent(CHILD.strip(), "    ").strip()}
    """
    with child(code) as owner:
        assert owner.stdout is not None
        follower, path = int(owner.stdout.readline()), owner.stdout.readline().strip()
        assert os.path.exists(path)
        owner.kill()
        owner.wait(10)
        until = time.monotonic() + 20
        while (os.path.exists(path) or alive(follower)) and time.monotonic() < until:
            time.sleep(0.02)
    assert not os.path.exists(path)
    assert not alive(follower)


def alive(pid: int) -> bool:
    """Whether a process still runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
