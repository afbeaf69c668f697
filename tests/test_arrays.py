"""Rows and namespaces of arrays of all kinds."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_array_equal

from scaleml import arrays
from scaleml.arrays import concatenate_rows, is_sparse, namespace, rows, to_numpy

DENSE = np.arange(20, dtype="f4").reshape(5, 4) * (np.arange(20).reshape(5, 4) % 3 == 0)


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_is_sparse(kind):
    assert is_sparse(kind(DENSE))
    assert not is_sparse(DENSE)
    assert not is_sparse(kind(DENSE).tocsc())
    assert not is_sparse(kind(DENSE).tocoo())
    assert not is_sparse([1])
    assert not is_sparse(None)


def test_namespace_is_numpy_for_all_else():
    assert namespace() is np
    assert namespace(DENSE, None, 3.0, [1], scipy.sparse.csr_matrix(DENSE)) is np


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (1, 3), (2, 2), (4, 5), (0, 0)])
@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_rows_are_views(kind, start, stop):
    x = kind(DENSE)
    part = rows(x, start, stop)
    assert type(part) is type(x)
    assert part.shape == (stop - start, 4)
    assert part.dtype == x.dtype
    assert_array_equal(to_numpy(part), DENSE[start:stop])
    if is_sparse(x) and part.nnz:
        assert np.shares_memory(part.data, x.data)
        assert np.shares_memory(part.indices, x.indices)
        part.check_format(full_check=True)
        w = np.arange(4.0)
        assert_array_equal(part @ w, DENSE[start:stop] @ w)
        assert_array_equal(part.T @ np.ones(stop - start), DENSE[start:stop].sum(axis=0))


def test_rows_of_labels():
    assert_array_equal(rows(np.arange(5), 1, 3), [1, 2])


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csr_array])
@pytest.mark.parametrize("cuts", [(0, 5), (0, 2, 5), (0, 0, 1, 1, 4, 5)])
def test_concatenate_rows_undoes_cutting(kind, cuts):
    x = kind(DENSE)
    whole = concatenate_rows([rows(x, *pair) for pair in itertools.pairwise(cuts)])
    assert type(whole) is type(x)
    assert_array_equal(to_numpy(whole), DENSE)
    if is_sparse(whole):
        whole.check_format(full_check=True)


@pytest.mark.parametrize("reason", ["a part has 64-bit indices", "there are too many values for 32 bits"])
def test_concatenate_widens_the_indices(reason, monkeypatch):
    parts = [scipy.sparse.csr_matrix(DENSE), scipy.sparse.csr_matrix(DENSE)]
    if reason.startswith("a part"):
        parts[1].indices, parts[1].indptr = parts[1].indices.astype("i8"), parts[1].indptr.astype("i8")
    else:
        monkeypatch.setattr(arrays, "INT32_MAX", 8)
    whole = concatenate_rows(parts)
    assert whole.indices.dtype == whole.indptr.dtype == np.int64
    assert_array_equal(to_numpy(whole), np.vstack([DENSE, DENSE]))
    assert_array_equal(whole @ np.arange(4.0), np.tile(DENSE @ np.arange(4.0), 2))


def test_concatenate_one_part_copies_nothing():
    assert concatenate_rows([DENSE]) is DENSE


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "at least one part"),
        ([DENSE, DENSE[:, :2]], r"rows of shapes \[\(2,\), \(4,\)\]: all must be equal"),
        ([DENSE, scipy.sparse.csr_matrix(DENSE)], "some parts are CSR and some dense"),
    ],
)
def test_concatenate_refuses(parts, words):
    with pytest.raises(ValueError, match=words):
        concatenate_rows(parts)


def test_to_numpy():
    assert to_numpy(DENSE) is DENSE
    assert to_numpy(3.0).shape == ()
    assert to_numpy(scipy.sparse.csr_matrix(DENSE)).dtype == DENSE.dtype


def test_what_a_rank_imports_is_light():
    """Building, training and checking on dense data brings in none of the libraries that cost a second."""
    script = """
import sys
import numpy as np
from scaleml.models import LinearModel, Signature
from scaleml.optim import SGD
net = LinearModel().build(Signature(2))
x, y, w, g = np.ones((3, 2), "f4"), np.ones(3, "f4"), net.init(0), np.empty(3, "f4")
net.loss_grad(w, x, y, None, g)
net.objective_grad(w, g)
SGD().apply(w, g, {}, 1)
net.statistics(w, x, y)
print(sorted({name.partition(".")[0] for name in sys.modules} & {"sklearn", "pandas", "dask", "scipy", "cupy"}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
