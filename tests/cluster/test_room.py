"""Data and models that fit nowhere are refused by their shapes: no array is made, no worker started."""

from __future__ import annotations

import mmap
from types import SimpleNamespace
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed.system import MEMORY_LIMIT

import scaleml
from scaleml import MLP, SGD, Adam, LinearModel, LocalSGD, Serial
from scaleml.cluster import embedded, ready_workers
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.staging import memory, room
from scaleml.models import Signature
from scaleml.neural_network import MLPClassifier
from scaleml.runtime.footprint import Footprint

MANY = 10**12
X, Y = np.eye(40, 20, dtype="f4"), np.arange(40) % 2


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a cluster would be started for what is refused anyway, as if none ran here."""

    def refuse(*_: object) -> Any:
        raise AssertionError("a cluster was asked for")

    for module in (memory, room):
        monkeypatch.setattr(module, "has_client", lambda: False)
    for module in (memory, ready_workers):
        monkeypatch.setattr(module, "find_client", refuse)


def test_a_view_of_a_million_million_rows() -> None:
    wide, y = np.broadcast_to(X[:1], (MANY, 20)), np.broadcast_to(np.float32(1), MANY)
    with pytest.raises(
        StartFailed, match=r"X has 1,000,000,000,000 rows of 20 columns, 88\.00 TB as float32, .* room for"
    ):
        scaleml.train(LinearModel("squared_error"), wide, y)


def test_a_mapped_file(tmp_path: Any) -> None:
    path = tmp_path / "X"
    with path.open("wb") as file:
        file.truncate(1 << 43)  # sparse: no disk has it
    mapped = np.memmap(path, "f4", "r", shape=((1 << 43) // 64, 16))
    try:
        with pytest.raises(StartFailed, match=r"9\.90 TB as float32.*dask\.array\.from_array"):
            scaleml.train(LinearModel("squared_error"), mapped, np.broadcast_to(np.float32(1), len(mapped)))
    finally:
        base: Any = mapped._mmap  # type: ignore[attr-defined]
        assert isinstance(base, mmap.mmap)
        del mapped
        base.close()


def test_rows_whose_order_alone_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=1 << 60)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    rows = MEMORY_LIMIT // 24 + 1
    with pytest.raises(StartFailed, match=f"shuffle so many rows takes {MEMORY_LIMIT / 1e9:.2f} GB of memory"):
        room.check_room(np.broadcast_to(X[:1, :8], (rows, 8)), "float32", None, None)


def test_a_lazy_dask_array() -> None:
    lazy = da.zeros((MANY, 20), chunks=(10**9, 20), dtype="f4")
    with pytest.raises(StartFailed, match=r"88\.00 TB as float32.*workers' disks.*temporary-directory"):
        scaleml.train(LinearModel(), lazy, da.zeros(MANY, chunks=10**9, dtype="i8"))


def test_what_has_room_and_what_says_no_size_pass() -> None:
    for fits in (X, np.broadcast_to(X[:1], (10**7, 20)), da.from_array(X), X.tolist(), None):
        room.check_room(fits, "float32", None, None)


@pytest.mark.parametrize("data", [(X, Y), (da.from_array(X), da.from_array(Y))], ids=["NumPy", "Dask"])
def test_a_layer_too_large_for_the_memory(data: tuple[Any, Any]) -> None:
    words = r"1,000,023,000,001 parameters need about 32\.00 TB a worker: parameters 4\.00 TB, gradient 4\.00 TB, Adam's slots 8\.00 TB"
    with pytest.raises(StartFailed, match=words):
        scaleml.train(MLP((10**6, 10**6)), *data, optimizer=Adam(), workers=2)


def test_a_comparison_too() -> None:
    with pytest.raises(StartFailed, match=r"parameters need about 24\.00 TB a worker"):
        scaleml.compare(MLP((10**6, 10**6)), X, Y, [Serial(), LocalSGD(4)], workers=2)


def test_estimators_too() -> None:
    with pytest.raises(StartFailed, match=r"parameters need about 64\.00 TB a worker"):
        MLPClassifier((10**6, 10**6)).fit(X.astype("f8"), Y)


def test_the_memory_of_this_machine_is_shared_by_as_many_workers_as_will_train() -> None:
    network = MLP((10**4, 10**4)).build(Signature(20))
    size = network.size * 4
    found = Footprint(network.size, size, (("parameters", int(0.8 * MEMORY_LIMIT / size)),))
    memory.check_model(found, Serial(), None, 4)
    with pytest.raises(StartFailed, match=f"the 4 workers on this machine have {MEMORY_LIMIT / 4e9:.2f} GB each"):
        memory.check_model(found, LocalSGD(4), None, 4)
    assert embedded.embedded_size() >= 1


def test_a_worker_with_a_limit_is_named_with_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    info = {"tcp://a": {"name": 0, "memory_limit": 2 * 10**9, "metrics": {"memory": 10**8}}}
    monkeypatch.setattr(memory, "find_client", lambda *_: (SimpleNamespace(), False))
    monkeypatch.setattr(memory.calls, "identity", lambda *_: info)
    network = LinearModel().build(Signature(10**8))
    with pytest.raises(StartFailed) as caught:
        memory.check_model(Footprint.of(network, Serial(), SGD(0.1)), Serial(), SimpleNamespace(), None)  # type: ignore[arg-type]
    assert str(caught.value).startswith(
        "100,000,001 parameters need about 2.40 GB a worker: parameters 400 MB, gradient 400 MB, copies that come and go 1.60 GB; "
        "but worker tcp://a has 2.00 GB, of which its process takes 100 MB already. Use a smaller model"
    )
