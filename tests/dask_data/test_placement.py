"""Where partitions and ranks of Dask collections lie, and how the rows come to them."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client

import scaleml
from dask_data.problem import LETTERS, column, dense, unknown
from scaleml import LinearModel
from scaleml.cluster.staging.placed_data import nearest
from scaleml.cluster.staging.stage_pass import StagePass, homes_of
from scaleml.cluster.staging.worker_files import WorkerFiles
from scaleml.data.collections import partitions_of
from scaleml.data.partition import PassOptions

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


def test_on_several_hosts_each_worker_stages_one_run_of_partitions(client: Client) -> None:
    info = client.scheduler_info()["workers"]
    first, second = sorted(info)
    partitions = partitions_of(dense(), LETTERS, None)
    assert homes_of(dense(), partitions, info, [first, second]) is None
    apart = {first: {"host": "alpha"}, second: {"host": "beta"}}
    homes = homes_of(dense(), partitions, apart, [first, second])
    assert homes == [first, second, second, second]  # 200 rows, and 300
    X = unknown(dense())
    even = homes_of(X, partitions_of(X, unknown(column(LETTERS)), None), apart, [first, second])
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
