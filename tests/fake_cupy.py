"""A stand-in for CuPy on NumPy's arithmetic, as strict as a GPU: NumPy's functions fail on its arrays.

Only functions and methods that CuPy has are here, and only with the arguments it takes, so that code which runs on this
makes no implicit copy to the CPU and calls nothing that CuPy lacks. Each time that the host would wait for the GPU is counted
(``cupy.cuda.waits``, see `fake_cuda`).
"""

import importlib.machinery
import sys
import types

import numpy as np
import pytest

from fake_cuda import Cuda

_cuda = Cuda(1)
"""That of the module which is installed."""


def _open(value):
    """Return the NumPy array within; refuse NumPy arrays, as CuPy does."""
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, tuple | list):
        return type(value)(_open(item) for item in value)
    return value


def _close(value):
    if isinstance(value, ndarray):
        return value
    return ndarray(np.asarray(value))


class ndarray:
    __module__ = "cupy"
    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, array):
        self._a = array

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_function__(self, *args):
        raise TypeError("a NumPy function was called on an array that lies on the GPU")

    def get(self, stream=None, order="C", out=None, blocking=True):
        assert not _cuda.is_stuck, "the host would wait for ever"
        _cuda.waits["get"] += 1
        if out is None:
            return self._a.copy()
        assert type(out) is np.ndarray
        assert (out.shape, out.dtype, out.flags.c_contiguous) == (self._a.shape, self._a.dtype, True)
        out[...] = self._a
        return out

    def set(self, array, stream=None):
        assert type(array) is np.ndarray
        assert (array.shape, array.dtype) == (self._a.shape, self._a.dtype)
        assert self._a.flags.c_contiguous
        self._a[...] = array

    def __dlpack_device__(self):
        return 1, 0  # the processor's memory, as far as others are concerned

    def __dlpack__(self, **asked):
        _cuda.check_is_queued()
        _cuda.kernels["dlpack"] += 1
        return self._a.__dlpack__(**asked)

    def fill(self, value):
        self._a.fill(value)

    def copy(self):
        return ndarray(self._a.copy())

    def tolist(self):
        _cuda.waits["tolist"] += 1
        return self._a.tolist()

    def astype(self, dtype, copy=True):
        return ndarray(self._a.astype(dtype, copy=copy))

    def view(self, dtype):
        return ndarray(self._a.view(dtype))

    def reshape(self, *shape):
        return ndarray(self._a.reshape(*shape))

    def __getitem__(self, key):
        found = self._a[_open(key)]
        return ndarray(found if isinstance(found, np.ndarray) else np.asarray(found))

    def __setitem__(self, key, value):
        self._a[_open(key)] = _open(value)

    def dot(self, other):
        return ndarray(np.asarray(self._a.dot(_open(other))))

    def __len__(self):
        return len(self._a)

    def __float__(self):
        _cuda.waits["float"] += 1
        return float(self._a)

    def __int__(self):
        _cuda.waits["int"] += 1
        return int(self._a)

    def __bool__(self):
        _cuda.waits["bool"] += 1
        return bool(self._a)

    shape = property(lambda self: self._a.shape)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    dtype = property(lambda self: self._a.dtype)
    nbytes = property(lambda self: self._a.nbytes)
    itemsize = property(lambda self: self._a.itemsize)
    data = property(lambda self: types.SimpleNamespace(ptr=self._a.__array_interface__["data"][0]))
    T = property(lambda self: ndarray(self._a.T))


def _reduction(name):
    def method(self, axis=None, out=None, keepdims=False, **dtype):
        assert set(dtype) <= ({"dtype"} if name == "sum" else set())
        found = getattr(self._a, name)(axis=axis, keepdims=keepdims, **dtype)
        if out is None:
            return _close(found)
        _open(out)[...] = found
        return out

    return method


def _operator(name):
    def method(self, *others):
        found = getattr(self._a, name)(*(_open(other) for other in others))
        if found is NotImplemented:
            return found
        if name.startswith("__i") and name != "__invert__":
            assert found is self._a
            return self
        return _close(found)

    return method


for _name in ("sum", "mean", "max", "min", "all", "any", "argmax"):
    setattr(ndarray, _name, _reduction(_name))
for _base in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or"):
    for _prefix in ("", "r", "i"):
        setattr(ndarray, f"__{_prefix}{_base}__", _operator(f"__{_prefix}{_base}__"))
for _name in ("neg", "abs", "invert", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def _function(name):
    def function(*args, out=None, **kwargs):
        assert not set(kwargs) - {"axis", "dtype", "keepdims", *OWN.get(name, ())}, (
            f"CuPy's {name} does not take {sorted(kwargs)}"
        )
        args = tuple(_open(arg) for arg in args)
        if out is None:
            return _close(getattr(np, name)(*args, **kwargs))
        getattr(np, name)(*args, out=_open(out), **kwargs)
        return out

    return function


class csr_matrix:
    """cupyx's CSR matrix: products with dense arrays, and its transpose."""

    __module__ = "cupyx.scipy.sparse._csr"
    format = "csr"
    dtype = property(lambda self: self.data.dtype)
    ndim = 2

    def __init__(self, shape, dtype="float32"):
        self.shape = shape
        self.data, self.indices = ndarray(np.zeros(0, dtype)), ndarray(np.zeros(0, "int32"))
        self.indptr = ndarray(np.zeros(shape[0] + 1, "int32"))

    @classmethod
    def of(cls, matrix):
        out = cls(matrix.shape, matrix.dtype)
        out.data, out.indices, out.indptr = (ndarray(a) for a in (matrix.data, matrix.indices, matrix.indptr))
        return out

    def _scipy(self):
        import scipy.sparse

        return scipy.sparse.csr_matrix((self.data._a, self.indices._a, self.indptr._a), shape=self.shape)

    def __matmul__(self, other):
        return ndarray(self._scipy() @ _open(other))

    def toarray(self):
        return ndarray(self._scipy().toarray())

    @property
    def T(self):
        return _Transposed(self._scipy().T)


class _Transposed:
    __module__ = "cupyx.scipy.sparse._csc"

    def __init__(self, matrix):
        self._matrix = matrix

    def __matmul__(self, other):
        return ndarray(self._matrix @ _open(other))


OWN = {"bincount": ("minlength",), "searchsorted": ("side",), "full": ("fill_value",)}
"""Arguments that a function has to itself."""

FUNCTIONS = [
    "absolute",
    "arange",
    "broadcast_to",
    "bincount",
    "concatenate",
    "count_nonzero",
    "clip",
    "cumsum",
    "divide",
    "empty",
    "empty_like",
    "exp",
    "flatnonzero",
    "floor",
    "full",
    "greater",
    "isfinite",
    "isinf",
    "log",
    "matmul",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "ones",
    "packbits",
    "partition",
    "searchsorted",
    "sign",
    "sort",
    "sqrt",
    "stack",
    "subtract",
    "tanh",
    "unpackbits",
    "where",
    "zeros",
    "zeros_like",
]


def _asarray(array, dtype=None):
    if isinstance(array, ndarray):
        return array if dtype in (None, array.dtype) else array.astype(dtype)
    return ndarray(np.array(array, dtype))


def _from_dlpack(tensor):
    _cuda.check_is_queued()
    return ndarray(tensor.numpy())


def install(monkeypatch: pytest.MonkeyPatch, devices: int = 1) -> types.ModuleType:
    """Make ``import cupy`` give the stand-in for the length of a test, on so many GPUs; return it."""
    global _cuda  # noqa: PLW0603  arrays count what is waited for, whoever has them
    module = types.ModuleType("cupy")
    module.__version__, module.__spec__ = "0", importlib.machinery.ModuleSpec("cupy", None)
    module.cuda = _cuda = Cuda(devices)
    module.get_default_memory_pool = lambda: types.SimpleNamespace(free_all_blocks=lambda: None)
    for name in FUNCTIONS:
        setattr(module, name, _function(name))
    module.ndarray, module.int64, module.int32 = ndarray, np.int64, np.int32
    module.linalg = types.SimpleNamespace(qr=lambda a: tuple(_close(part) for part in np.linalg.qr(_open(a))))
    module.asarray, module.from_dlpack = _asarray, _from_dlpack
    monkeypatch.setitem(sys.modules, "cupy", module)
    sparse = types.ModuleType("cupyx.scipy.sparse")
    sparse.csr_matrix = csr_matrix
    for name in ("cupyx", "cupyx.scipy"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "cupyx.scipy.sparse", sparse)
    return module
