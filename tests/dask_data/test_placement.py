"""Where partitions and ranks of Dask collections lie, and how the rows come to them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client

import scaleml
from dask_data.problem import LETTERS, column, dense, unknown
from scaleml import LinearModel
from scaleml.cluster.staging.files import Delivered, Files
from scaleml.cluster.staging.placed_data import PlacedData, PlacedRows, nearest
from scaleml.cluster.staging.stage_pass import StagePass, homes_of
from scaleml.cluster.staging.worker_files import WorkerFiles
from scaleml.data.collections import Table, partitions_of
from scaleml.data.partition import PassOptions
from scaleml.data.piece import Piece, Region, Run
from scaleml.data.shard import Shard, cut_shards

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_workers_that_cannot_read_each_others_files_are_sent_copies(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on several hosts; made so by asking nobody."""
    from scaleml.cluster.staging import placed_data as placing

    expected = scaleml.train(LinearModel(), dense(), column(LETTERS), epochs=2, batch_size=32, client=client).params

    def nobody(client: Any, seconds: float, function: Any, files: Any, workers: Any) -> Any:
        return {address: [False] * len(files) for address in workers}

    monkeypatch.setattr(placing.calls, "on_workers", _only("readable", nobody, placing.calls.on_workers))
    run = scaleml.train(LinearModel(), dense(), column(LETTERS), epochs=2, batch_size=32, client=client)
    np.testing.assert_array_equal(run.params, expected)


def _only(name: str, replacement: Any, original: Any) -> Any:
    def call(client: Any, seconds: float, function: Any, *args: Any, **settings: Any) -> Any:
        chosen = replacement if function.__name__ == name else original
        return chosen(client, seconds, function, *args, **settings)

    return call


def test_some_workers_only(client: Client) -> None:
    first = next(iter(client.scheduler_info()["workers"]))
    run = scaleml.train(LinearModel(), dense(), column(LETTERS), epochs=1, workers=[first], client=client)
    assert run.state == "finished"
    assert run.workers == 1


def test_ranks_go_where_their_rows_are() -> None:
    homes: list[dict[str, int]] = [{"a": 5, "b": 20}, {"b": 19, "c": 1}, {}]
    assert nearest(["a", "b", "c", "d"], homes) == ["b", "c", "a", "d"]
    assert nearest(["a", "c"], homes[:2]) == ["a", "c"]
    assert nearest(["a", "b"], homes[:1]) == ["b", "a"]


class Anywhere(Files):
    """Files of pieces that all workers see."""

    def refresh(self, client: Client) -> None: ...

    def bring(self, client: Client, shards: Sequence[Shard], address: str, seen: set[str]) -> None: ...

    def witnesses(self) -> dict[str, tuple[str, bytes]]:
        return {"here": ("file", b"end")}

    def homes(self, shard: Shard) -> dict[str, int]:
        homes: Counter[str] = Counter()
        for run in shard.runs:
            homes[run.piece.path] += run.rows
        return homes

    def deliver(self, client: Client, shards: Sequence[Shard], address: str, seen: set[str]) -> list[Delivered]:
        assert seen == {"here"}
        return list(shards)

    def close(self) -> None: ...


def test_shards_are_cut_once_for_all_ranks_and_whoever_follows_them(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scaleml.cluster.staging import placed_data

    cuts: list[int] = []

    def counted(runs: Sequence[Run], count: int, seed: int | None) -> list[Shard]:
        cuts.append(count)
        return cut_shards(runs, count, seed)

    monkeypatch.setattr(placed_data, "cut_shards", counted)
    monkeypatch.setattr(placed_data.calls, "on_workers", lambda *_, workers: {worker: [True] for worker in workers})
    ranks = 64
    workers = [f"worker {rank}" for rank in range(ranks)]
    column = Region(0, (100,), "<f4")
    pieces = [Piece(workers[i * ranks // 1000], 100, 1, Region(0, (100, 1), "<f4"), column, None) for i in range(1000)]
    data = PlacedData(PlacedRows(Anywhere(), [Run(piece, 0, 100) for piece in pieces], 0))
    owned = [[rank] for rank in range(ranks)]
    assert data.nearest(workers[::-1], ranks) == workers
    data.bring(client, workers, ranks, owned)
    first, second = (data.shards_for(client, workers, ranks, owned) for _ in range(2))
    assert cuts == [ranks]
    assert first == second
    assert sum(shard.rows for mine, _ in first for shard in mine) == 100_000


def test_on_several_hosts_each_worker_stages_one_run_of_partitions(client: Client) -> None:
    info = client.scheduler_info()["workers"]
    first, second = sorted(info)
    (partitions,) = partitions_of(Table(dense(), LETTERS))
    assert homes_of(dense(), partitions, info, [first, second]) is None
    apart = {first: {"host": "alpha"}, second: {"host": "beta"}}
    homes = homes_of(dense(), partitions, apart, [first, second])
    assert homes == [first, second, second, second]  # 200 rows, and 300
    X = unknown(dense())
    even = homes_of(X, partitions_of(Table(X, unknown(column(LETTERS))))[0], apart, [first, second])
    assert even == [first, first, second, second]
    assert homes_of(client.persist(dense()), partitions, apart, [first, second]) is None
    options = PassOptions("0" * 16, "float32", True, 0, 0.0, "X")
    files = WorkerFiles(client, StagePass(partitions, options, None, homes))
    try:
        assert [summary.worker for summary in files.summaries] == homes
    finally:
        files.close()


def test_what_this_process_holds_goes_straight_to_the_workers(client: Client) -> None:
    """Not with the tasks through the scheduler, which Dask would warn of: warnings are errors here."""
    rows = 2_000_000
    X = da.random.default_rng(0).standard_normal((rows, 2), dtype="f4", chunks=(rows // 4, 2))
    labels = np.arange(rows) % 2  # 16 MB
    run = scaleml.train(LinearModel(), X, labels, epochs=1, batch_size=10_000, client=client)
    assert run.plan.rows == rows
