"""Training on Dask collections gives, bit for bit, what the same rows give as NumPy arrays without Dask."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from distributed import Client, wait

import scaleml
from dask_data import oracle
from dask_data.problem import CHUNKS, CSR, DENSE, LETTERS, NUMBERS, RNG, ROWS, TWO, column, csr, dense, unknown
from scaleml import MLP, AllReduce, LinearModel, Serial
from scaleml.cluster.staging.training_data import TrainingData
from scaleml.data.source import array_source

REGRESSION = LinearModel("squared_error")

pytestmark = pytest.mark.usefixtures("nothing_left")


@dataclass(frozen=True)
class Case:
    """What is passed to ``train``, and the plain rows it stands for."""

    X: Any
    y: Any
    plain_X: Any = field(default_factory=lambda: DENSE)
    plain_y: Any = field(default_factory=lambda: LETTERS)
    model: Any = field(default_factory=LinearModel)
    sizes: tuple[int, ...] = CHUNKS
    settings: dict[str, Any] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)


WEIGHTS = RNG.random(ROWS)
CASES = {
    "dense": lambda: Case(dense(), column(LETTERS)),
    "MLP": lambda: Case(dense(), column(LETTERS), model=MLP((8,))),
    "float64 model": lambda: Case(dense(), column(LETTERS), model=LinearModel(dtype="float64")),
    "float32 X": lambda: Case(dense().astype("f4"), column(LETTERS)),
    "integer X": lambda: Case((dense() * 9).astype("i2"), column(LETTERS), (DENSE * 9).astype("i2")),
    "boolean X": lambda: Case(dense() > 0, column(LETTERS), DENSE > 0),
    "objects": lambda: Case(dense(), column(LETTERS.astype(object)), plain_y=LETTERS.astype(object)),
    "two classes": lambda: Case(dense(), column(TWO), plain_y=TWO),
    "integer labels": lambda: Case(dense(), column(TWO * 7 - 3), plain_y=TWO * 7 - 3),
    "float labels": lambda: Case(dense(), column(TWO * 2.0), plain_y=TWO * 2.0),
    "regression": lambda: Case(dense(), column(NUMBERS), plain_y=NUMBERS, model=REGRESSION),
    "y as a column": lambda: Case(dense(), column(NUMBERS).reshape(-1, 1), plain_y=NUMBERS, model=REGRESSION),
    "two targets": lambda: Case(
        dense(), da.from_array(DENSE[:, :2], chunks=(CHUNKS, 1)), plain_y=DENSE[:, :2], model=REGRESSION
    ),
    "CSR": lambda: Case(csr(), column(LETTERS), CSR),
    "CSC": lambda: Case(csr().map_blocks(scipy.sparse.csc_array), column(LETTERS), CSR),
    "misaligned y": lambda: Case(dense(), column(LETTERS, 170)),
    "columns in chunks": lambda: Case(dense(columns=4), column(LETTERS)),
    "NumPy y": lambda: Case(dense(), LETTERS),
    "list y": lambda: Case(dense(), LETTERS.tolist()),
    "sizes unknown": lambda: Case(unknown(dense()), unknown(column(LETTERS))),
    "X unknown": lambda: Case(unknown(dense()), column(LETTERS)),
    "y unknown": lambda: Case(dense(), unknown(column(LETTERS))),
    "X unknown, columns in chunks": lambda: Case(unknown(dense(columns=4)), column(LETTERS)),
    "empty partitions": lambda: Case(
        dense((0, 200, 0, 300, 0)), column(LETTERS, (0, 200, 0, 300, 0)), sizes=(0, 200, 0, 300, 0)
    ),
    "one partition, two ranks": lambda: Case(dense(ROWS), column(LETTERS, ROWS), sizes=(ROWS,)),
    "one partition, seven shards": lambda: Case(
        dense(ROWS), column(LETTERS, ROWS), sizes=(ROWS,), settings={"shards": 7}, plain={"shards": 7}
    ),
    "weights": lambda: Case(
        dense(), column(LETTERS), settings={"sample_weight": column(WEIGHTS, 130)}, plain={"sample_weight": WEIGHTS}
    ),
    "NumPy weights": lambda: Case(
        dense(), column(LETTERS), settings={"sample_weight": WEIGHTS}, plain={"sample_weight": WEIGHTS}
    ),
    "seed": lambda: Case(dense(), column(LETTERS), settings={"seed": 11}, plain={"seed": 11}),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_same_bits_as_without_dask(kind: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[kind]()
    run = scaleml.train(case.model, case.X, case.y, epochs=2, batch_size=32, client=client, **case.settings)
    width = np.dtype(case.model.dtype).itemsize
    row_nbytes = DENSE.shape[1] * width if case.plain_X is not CSR else 1  # CSR: far from a block anyway
    expected = oracle.params(
        monkeypatch,
        case.model,
        case.plain_X,
        case.plain_y,
        case.sizes,
        row_nbytes=row_nbytes,
        strategy=AllReduce(),
        **case.plain,
    )
    np.testing.assert_array_equal(run.params, expected)
    if case.model.is_classifier:
        np.testing.assert_array_equal(run.model.classes, np.unique(case.plain_y))


def test_the_oracle_takes_each_row_once() -> None:
    assert sorted(oracle.order(CHUNKS, 3, 3, 24)) == list(range(ROWS))
    assert sorted(oracle.order(CHUNKS, 3, 3, 1 << 17)) == list(range(ROWS))  # many blocks a shard


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_streamed_or_kept_in_memory_the_bits_are_the_same(
    share: float, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With rows so wide that a shard has many blocks, and batches that end in the middle of them."""
    chunks = (70, 130, 100)
    X = da.random.default_rng(0).standard_normal((300, 50_000), dtype="f4", chunks=(chunks, -1))
    wide = X.compute(scheduler="synchronous")
    labels = wide[:, 0] > 0
    model = LinearModel()
    with dask.config.set({"scaleml.memory-share": share}):
        run = scaleml.train(
            model,
            X,
            labels,
            epochs=2,
            batch_size=50,
            validation=(wide[:40], labels[:40]),
            client=client,
        )
    expected = oracle.params(
        monkeypatch, model, wide, labels, chunks, row_nbytes=200_000, batch_size=50, strategy=AllReduce()
    )
    np.testing.assert_array_equal(run.params, expected)
    assert run.history.evaluations["loss"][-1] == pytest.approx(run.model.loss(wide[:40], labels[:40]), rel=1e-6)


@pytest.mark.parametrize("kind", ["dense", "CSR"])
def test_numpy_data_streams_too(kind: str, client: Client) -> None:
    X = np.repeat(DENSE, 8, axis=0) if kind == "dense" else scipy.sparse.vstack([CSR] * 8, format="csr")
    y = np.repeat(LETTERS, 8) if kind == "dense" else np.tile(LETTERS, 8)
    runs = []
    for share in (0.0, 0.25):
        with dask.config.set({"scaleml.memory-share": share}):
            runs.append(scaleml.train(LinearModel(), X, y, epochs=2, batch_size=48, validation=0.25, client=client))
    np.testing.assert_array_equal(runs[0].params, runs[1].params)
    assert runs[0].history.evaluations["loss"] == pytest.approx(runs[1].history.evaluations["loss"], rel=1e-9)


def test_where_the_partitions_lie_does_not_change_the_bits(client: Client) -> None:
    workers = list(client.scheduler_info()["workers"])
    params = []
    for homes in (workers[:1], workers[1:], workers):
        X, y = client.persist([dense(), column(LETTERS)], workers=homes)
        with client.as_current():
            wait([X, y])
        params.append(scaleml.train(LinearModel(), X, y, epochs=2, batch_size=32, client=client).params)
        del X, y
    np.testing.assert_array_equal(params[0], params[1])
    np.testing.assert_array_equal(params[0], params[2])


def test_a_fraction_is_held_out_within_each_partition(client: Client) -> None:
    run = scaleml.train(LinearModel(), dense(), column(LETTERS), epochs=1, validation=0.2, seed=4, client=client)
    train, held = oracle.pieces(CHUNKS, 4, 0.2)
    assert run.plan.rows == sum(map(len, train))
    for size, rows in zip(CHUNKS, held, strict=True):
        assert abs(len(rows) - 0.2 * size) < 1
    rows = np.concatenate(held)
    evaluation = run.history.evaluations
    assert evaluation["loss"][-1] == pytest.approx(run.model.loss(DENSE[rows], LETTERS[rows]), rel=1e-5)
    assert evaluation["score"][-1] == pytest.approx(run.model.score(DENSE[rows], LETTERS[rows]))


PAIRS = {
    "Dask": lambda: (dense(), column(LETTERS), (dense((250, 250)), column(LETTERS, 250))),
    "Dask, unknown": lambda: (dense(), column(LETTERS), (unknown(dense()), unknown(column(LETTERS)))),
    "NumPy": lambda: (dense(), column(LETTERS), (DENSE, LETTERS)),
    "NumPy, then Dask": lambda: (DENSE, LETTERS, (dense(), column(LETTERS))),
    "with weights": lambda: (dense(), column(LETTERS), (dense(), column(LETTERS), column(WEIGHTS))),
    "X NumPy, y Dask": lambda: (DENSE, column(LETTERS), (DENSE, column(LETTERS))),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_validation_pairs_of_any_kinds(kind: str, client: Client) -> None:
    X, y, validation = PAIRS[kind]()
    run = scaleml.train(LinearModel(), X, y, epochs=1, validation=validation, client=client)
    weights = WEIGHTS if len(validation) == 3 else None
    assert run.history.evaluations["loss"][-1] == pytest.approx(run.model.loss(DENSE, LETTERS, weights), rel=1e-5)


def test_a_comparison_stages_once_for_all_runs(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = scaleml.compare(
        LinearModel(), dense(), column(LETTERS), [Serial(), AllReduce()],
        epochs=2, batch_size=32, repeats=2, all_cores=False, client=client,
    )  # fmt: skip
    assert [run.state for run in comparison.runs] == ["finished"] * 4
    assert len({run.plan.rows for run in comparison.runs}) == 1


def test_what_x_and_y_are_both_made_of_is_computed_once(client: Client, tmp_path: Path) -> None:
    def read(block: Any, block_info: Any = None) -> Any:
        (index, _) = block_info[0]["chunk-location"]
        with open(tmp_path / f"{index}", "a") as file:
            file.write("read ")
        return block

    table = dense().map_blocks(read, dtype=float, meta=np.empty((0, 0)))
    run = scaleml.train(LinearModel(), table[:, 1:], table[:, 0] > 0, epochs=1, client=client)
    assert run.plan.model.signature.n_features == 5
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["read "] * len(CHUNKS)


def test_y_and_weights_of_one_source_are_fetched_together_to_where_x_is(client: Client, tmp_path: Path) -> None:
    def read(block: Any, block_info: Any = None) -> Any:
        with open(tmp_path / str(block_info[0]["chunk-location"][0]), "a") as file:
            file.write("read ")
        return block

    source = column(NUMBERS).map_blocks(read, dtype=float, meta=np.empty(0))
    run = scaleml.train(LinearModel(), DENSE, source > 0, sample_weight=abs(source), epochs=1, client=client)
    assert run.plan.rows == ROWS
    assert [path.read_text() for path in tmp_path.iterdir()] == ["read "] * len(CHUNKS)


@pytest.mark.parametrize("X", [DENSE, dense()], ids=["NumPy", "Dask"])
def test_data_that_was_checked_already_is_taken_as_it_is(X: Any, client: Client) -> None:
    checked = array_source(DENSE, LETTERS, classifier=True)
    train = checked if X is DENSE else X
    data = TrainingData(LinearModel(), train, column(LETTERS), None, checked, 0, client)
    try:
        assert (data.rows, data.placed.held_out.rows) == (ROWS, ROWS)
    finally:
        data.close()
