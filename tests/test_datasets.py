"""Data sets by name and from files: what comes out, and what is refused with which words."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scaleml.datasets import load, padded
from scaleml.datasets.dataset import WORDS


@pytest.mark.parametrize(
    ("name", "shape", "task", "classes"),
    [
        ("digits", (1797, 64), "classification", 10),
        ("breast_cancer", (569, 30), "classification", 2),
        ("wine", (178, 13), "classification", 3),
        ("diabetes", (442, 10), "regression", None),
    ],
)
def test_what_scikit_learn_ships_comes_standardised_and_shuffled(name, shape, task, classes):
    data = load(name)
    assert data.X.shape == shape
    assert data.X.dtype == np.float32
    assert (data.name, data.task) == (name, task)
    np.testing.assert_allclose(data.X.mean(axis=0), 0, atol=1e-4)
    spread = data.X.std(axis=0)
    np.testing.assert_allclose(spread[spread > 0], 1, atol=1e-3)
    assert "standardised" in data.description
    if classes:
        assert len(np.unique(data.y)) == classes
        assert (np.diff(data.y) != 0).sum() > len(data.y) / 4  # not sorted by class: shards hold alike rows
    else:
        np.testing.assert_allclose([data.y.mean(), data.y.std()], [0, 1], atol=1e-5)


def test_the_same_seed_gives_the_same_rows_and_pairs_stay_together():
    from sklearn.datasets import load_wine

    one, two, other = load("wine", seed=3), load("wine", seed=3), load("wine", seed=4)
    np.testing.assert_array_equal(one.X, two.X)
    assert not np.array_equal(one.y, other.y)
    raw = load_wine()
    known = {
        tuple(np.round(x, 3)): y
        for x, y in zip((raw.data - raw.data.mean(0)) / raw.data.std(0), raw.target, strict=True)
    }
    found = [known[tuple(np.round(x.astype(float), 3))] for x in one.X if tuple(np.round(x.astype(float), 3)) in known]
    expected = [y for x, y in zip(one.X, one.y, strict=True) if tuple(np.round(x.astype(float), 3)) in known]
    assert len(found) > 100
    assert found == expected


def test_generated_data_has_the_size_asked_for_and_can_be_learnt():
    from sklearn.linear_model import LogisticRegression

    data = load("generated:70000x20", seed=1)
    assert data.X.shape == (70000, 20)
    assert data.X.dtype == np.float32
    np.testing.assert_allclose(data.X.std(axis=0), 1, atol=0.02)
    assert 0.45 < data.y.mean() < 0.55
    score = LogisticRegression().fit(data.X[:5000], data.y[:5000]).score(data.X[5000:], data.y[5000:])
    assert 0.75 < score < 0.95
    np.testing.assert_array_equal(data.y, load("generated:70000x20", seed=1).y)


@pytest.mark.parametrize(
    "text", ["generated:", "generated:10", "generated:0x5", "generated:5x0", "generated:ax3", "generated:-5x3"]
)
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="generated:ROWSxCOLUMNS"):
        load(text)


@pytest.mark.parametrize("name", ["polarity", "cifar10"])
def test_larger_data_says_where_to_put_it(name, monkeypatch, tmp_path):
    monkeypatch.delenv("SCALEML_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="environment variable SCALEML_DATA"):
        load(name)
    monkeypatch.setenv("SCALEML_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="put it there"):
        load(name)


def test_polarity_is_hashed_words(monkeypatch, tmp_path):
    lines = ["split\tlabel\ttext", 'train\t1\t"a fine film', "test\t0\ta dull , dull film", "train\t1\tvery fine"]
    (tmp_path / "polarity.tsv").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("SCALEML_DATA", str(tmp_path))
    data = load("polarity")
    assert sparse.issparse(data.X)
    assert data.X.format == "csr"
    assert data.X.shape == (3, WORDS)
    assert data.X.dtype == np.float32
    assert sorted(data.y) == [0, 1, 1]
    assert sorted(np.diff(data.X.indptr)) == [2, 2, 2]


def test_cifar10_is_flat_and_between_0_and_1(monkeypatch, tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    labels = (images.reshape(12, -1)[:, 0] % 10).astype(np.uint8)
    np.savez(tmp_path / "cifar10_12k.npz", X_train=images[:9], y_train=labels[:9], X_test=images[9:], y_test=labels[9:])
    monkeypatch.setenv("SCALEML_DATA", str(tmp_path))
    data = load("cifar10")
    assert data.X.shape == (12, 48)
    assert data.X.dtype == np.float32
    assert 0 <= data.X.min() <= data.X.max() <= 1
    np.testing.assert_array_equal(np.rint(data.X[:, 0] * 255).astype(int) % 10, data.y)


@pytest.fixture
def frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    n = 60
    return pd.DataFrame(
        {
            "age": random.integers(20, 60, n),
            "price": random.normal(50, 9, n),
            "town": random.choice(["Ulm", "Bonn", "Kiel"], n),
            "class": random.choice(["yes", "no"], n),
            "rest": random.normal(size=n),
        }
    )


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "parquet"])
def test_a_table_with_words(frame, tmp_path, ending):
    path = tmp_path / f"people.{ending}"
    if ending == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if "tsv" in ending else ",", index=False)
    data = load(path)
    assert data.X.shape == (60, 2 + 3 + 1)
    assert data.task == "classification"
    assert set(data.y) == {"yes", "no"}
    assert "target 'class' (by its name)" in data.description
    assert "town: one column for each of 3 values" in data.description
    np.testing.assert_allclose(data.X.mean(axis=0), 0, atol=1e-5)


def test_the_target_as_told_and_the_last_column(frame, tmp_path):
    path = tmp_path / "people.csv"
    frame.to_csv(path, index=False)
    told = load(path, target="price")
    assert told.task == "regression"
    assert "'price' (as told)" in told.description
    np.testing.assert_allclose(
        np.sort(told.y), np.sort((frame["price"] - frame["price"].mean()) / frame["price"].std(ddof=0)), atol=1e-4
    )
    frame.drop(columns="class").to_csv(path, index=False)
    assert "'rest' (the last column)" in load(path).description
    with pytest.raises(ValueError, match=r"no column 'prize'.*'age', 'price', 'town'"):
        load(path, target="prize")


def test_sentences_are_hashed(tmp_path):
    path = tmp_path / "reviews.tsv"
    rows = [f'{i % 2}\t"the film number {i} was {"good" if i % 2 else "bad"}' for i in range(20)]
    path.write_text("label\ttext\n" + "\n".join(rows) + "\n")
    data = load(path)
    assert data.X.shape == (20, WORDS)
    assert data.X.format == "csr"
    assert "text: words hashed" in data.description


def test_numbers_beside_sentences_stay_numbers(tmp_path):
    path = tmp_path / "reviews.csv"
    pd.DataFrame(
        {"text": [f"a film of kind {i}" for i in range(30)], "stars": np.arange(30.0), "y": np.arange(30) % 3}
    ).to_csv(path, index=False)
    data = load(path)
    assert data.X.shape == (30, 1 + WORDS)
    column = data.X[:, 0].toarray().ravel()
    np.testing.assert_allclose([column.mean(), column.std()], [0, 1], atol=1e-5)


def test_a_table_without_names(tmp_path):
    path = tmp_path / "bare.csv"
    np.savetxt(path, np.c_[np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 2], delimiter=",")
    data = load(path)
    assert data.X.shape == (30, 3)
    assert data.task == "classification"


def test_arrays_in_npz(tmp_path):
    path = tmp_path / "some.npz"
    np.savez(path, X=np.arange(24.0).reshape(6, 2, 2), y=np.array([0, 1, 0, 1, 0, 1]))
    assert load(path).X.shape == (6, 4)
    np.savez(path, data=np.zeros(3))
    with pytest.raises(ValueError, match=r"holds data, but no X and no y.*np\.savez"):
        load(path)
    np.savez(path, X=np.zeros((3, 2)), y=np.zeros(4))
    with pytest.raises(ValueError, match="reshape"):
        load(path)
    np.savez(path, X=np.array([[1.0], [np.nan]]), y=np.zeros(2))
    with pytest.raises(ValueError, match="missing or infinite"):
        load(path)


def test_svmlight_stays_sparse(tmp_path):
    path = tmp_path / "some.svmlight"
    path.write_text("1 1:0.5 7:2\n-1 3:1\n1 2:4\n-1 7:1\n")
    data = load(path)
    assert data.X.shape == (4, 7)
    assert sparse.issparse(data.X)
    assert set(data.y) == {-1, 1}
    with pytest.raises(ValueError, match="first number of each line"):
        load(path, target="x")


def test_missing_values_are_named(frame, tmp_path):
    frame.loc[[3, 5], "age"] = np.nan
    frame.loc[1, "class"] = None
    frame.loc[2, "price"] = np.inf
    path = tmp_path / "people.csv"
    frame.to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"in 'age' \(2\), 'price' \(1\), 'class' \(1\): .*dropna"):
        load(path)


def test_identifiers_and_dates_are_refused(frame, tmp_path):
    path = tmp_path / "people.csv"
    many = pd.DataFrame({"who": [f"person{i}" for i in range(300)], "y": np.arange(300) % 2})
    many.to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"column 'who' is different in nearly every row.*drop it"):
        load(path)
    pytest.importorskip("pyarrow")
    path = tmp_path / "people.parquet"
    frame.assign(born=pd.Timestamp("2001-01-01")).to_parquet(path)
    with pytest.raises(ValueError, match="column 'born' holds datetime64"):
        load(path)


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(ValueError, match=r"'iris2' is no data set: use digits"):
        load("iris2")
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.csv"):
        load(tmp_path / "gone.csv")
    (tmp_path / "some.xlsx").write_bytes(b"")
    with pytest.raises(ValueError, match="of no kind that can be read"):
        load(tmp_path / "some.xlsx")
    with pytest.raises(ValueError, match="leave it out"):
        load("wine", target="x")


REAL = os.environ.get("SCALEML_DATA", "")


@pytest.mark.skipif(
    not (Path(REAL) / "polarity.tsv").is_file() or not REAL, reason="SCALEML_DATA names no folder with the real data"
)
def test_the_real_files():
    assert load("polarity").X.shape == (10_662, WORDS)
    assert load("cifar10").X.shape == (12_000, 3072)


def test_sequences_are_padded_with_their_lengths_beside() -> None:
    rng = np.random.default_rng(0)
    for dtype, inner in ((np.int32, ()), (np.float64, (3,))):
        sequences = [rng.integers(1, 9, (size, *inner)).astype(dtype) for size in (4, 0, 7, 1)]
        for length in (None, 5, 9):
            found = padded(sequences, length, value=-2)
            tokens = found["tokens"]
            assert tokens.shape == (4, length or 7, *inner)
            assert tokens.dtype == dtype
            for row, size, sequence in zip(tokens, found["lengths"], sequences, strict=True):
                assert size == min(len(sequence), len(row))
                np.testing.assert_array_equal(row[:size], sequence[:size])
                assert (row[size:] == -2).all()
    assert padded([[], []])["tokens"].tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("sequences", "settings", "words"),
    [
        ([], {}, "at least one"),
        (["a text"], {}, "token numbers of text"),
        ([3, [4]], {}, "each must be a list"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], {}, "several shapes"),
        ([[1, 2]], {"value": 0.5}, "value=0.5 is none that int64 has"),
        ([[1, 2]], {"length": 0}, "length=0"),
    ],
)
def test_what_cannot_be_padded_is_refused(sequences, settings, words) -> None:
    with pytest.raises(ValueError, match=words):
        padded(sequences, **settings)
