"""Sizes of columns against NumPy on the whole, and the words that follow from them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from scaleml.data.column_sizes import ColumnSizes

ORDER = np.random.default_rng(1).permutation(40_000)


def test_a_sample_is_near_the_whole() -> None:
    random = np.random.default_rng(0)
    x = (random.normal(size=(40_000, 6)) + np.array([0, 3, 0, 0, 0, 100])) * np.array([1, 1, 1e-3, 50, 1e6, 1])
    found = ColumnSizes.of(x.astype("f4"), ORDER)
    assert found is not None
    assert found.rows == 40_000
    np.testing.assert_allclose(found.sizes, np.sqrt((x * x).mean(axis=0)), rtol=0.1)


def test_a_few_rows_are_looked_at_whole() -> None:
    x = np.arange(12).reshape(4, 3)
    found = ColumnSizes.of(x, np.arange(4))
    assert found is not None
    np.testing.assert_allclose(found.squares, (x.astype("f8") ** 2).mean(axis=0))


def test_partitions_count_by_their_rows() -> None:
    x = np.random.default_rng(2).normal(size=(60, 4))
    parts = [ColumnSizes.of(rows, np.arange(len(rows))) for rows in (x[:10], x[10:40], x[40:])]
    together = ColumnSizes.together(parts)
    assert together is not None
    assert together.rows == 60
    np.testing.assert_allclose(together.squares, (x * x).mean(axis=0))
    assert ColumnSizes.together([*parts, None]) is None
    assert ColumnSizes.together([]) is None


def test_what_is_not_looked_at() -> None:
    assert ColumnSizes.of(scipy.sparse.csr_matrix(np.eye(3)), np.arange(3)) is None
    assert ColumnSizes.of(np.zeros((2, 20_000), "f4"), np.arange(2)) is None
    assert ColumnSizes.of(np.zeros((0, 3)), np.arange(0)) is None


@pytest.mark.parametrize(
    ("sizes", "names", "words"),
    [
        ([1, 0.5, 2], None, ""),
        ([9, 9, 9], None, ""),
        ([0, 0, 0], None, ""),
        ([1, 5e4], None, "column 1 (values of about 5e+04) is far larger than the others (about 1)"),
        ([2000, 1, 5e4, 0], "abcd", "columns 'c' (values of about 5e+04), 'a' (values of about 2e+03) are far larger than the others"),
        ([180, 200, 150], None, "most columns of X hold values of about 1.8e+02"),
        ([*[1] * 9, *[100] * 9], None, "and 4 more are far larger than the others (about 1)"),
        ([8, 8, 8, 8, 11], None, ""),  # not far apart, and most are small enough
        ([1e150, 1], None, "column 0 (values of about 1e+150)"),
    ],
)  # fmt: skip
def test_the_words(sizes: list[float], names: str | None, words: str) -> None:
    said = ColumnSizes(np.array(sizes, "f8") ** 2, 10).advice(names)
    assert (words in said) if words else said == ""
    assert not said or said.endswith("(sklearn.preprocessing.StandardScaler)")
