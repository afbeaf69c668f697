"""Tensors: rows of any shape and dtype, one array or several inputs of equal length, which become rows of records.

Only models with ``takes_any_shape`` are given such; tables of numbers are in ``columns``. A row is described by a NumPy dtype: a plain one,
one with a shape, or a record with an aligned field for each input. So whatever cuts, joins, shuffles or stores rows needs to know no more
than that there is one array of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, final

import numpy as np

from scaleml.arrays import Array, to_numpy
from scaleml.data.bad_columns import REAL
from scaleml.data.columns import array_of_column, matrix_of_frame, refuse_pieces
from scaleml.data.row_dtype import ALONE, Row, is_several, items_of, record_of, refuse_other_row, row_of

BLOCK: Final = 8 << 20
"""Bytes that are converted at a time."""


@final
@dataclass(frozen=True)
class Tensors:
    """Rows as a user has them, not copied, and what each of them becomes.

    Parameters
    ----------
    parts : mapping of str to (n, ...) array
        The inputs; one that stands for itself has an empty name.
    row : numpy.dtype
        Of a row as ranks get it: floats in the model's dtype, integers and booleans in their own.
    name : str
        How errors call them.
    first : int
        Number of the first row in the user's data, for errors.

    Examples
    --------
    >>> import numpy as np
    >>> both = as_tensors({"image": np.zeros((2, 3, 4), "uint8"), "age": np.array([0.5, 0.25])}, "X", "float32")
    >>> rows = both.take(np.array([1]))
    >>> rows["image"].shape, rows["age"].tolist(), rows.dtype["age"].name
    ((1, 3, 4), [0.25], 'float32')
    """

    parts: Mapping[str, Array]
    row: Row
    name: str
    first: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    @property
    def items(self) -> int:
        """Numbers in a row."""
        return items_of(self.row)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows as ranks get them."""
        return len(self) * self.row.itemsize

    @property
    def table(self) -> Array | None:
        """The rows as they are, where they are a table of floats; else None."""
        alone = self.parts.get(ALONE)
        return alone if alone is not None and alone.ndim == 2 and alone.dtype.kind == "f" else None

    def take(self, rows: Array | slice) -> Array:
        """Return some rows in the dtype that ranks get.

        Raises
        ------
        ValueError
            For a value that is not finite, or no value of that dtype, naming its row.
        """
        if not is_several(self.row):
            return self._converted(ALONE, self.row.base, rows)
        count = len(range(*rows.indices(len(self)))) if isinstance(rows, slice) else len(rows)
        found = np.zeros(count, self.row)  # between the fields of a record, too: the file has a digest
        for name in self.row.names or ():
            found[name] = self._converted(name, self.row[name].base, rows)
        return found

    def blocks(self, rows: Array) -> Iterator[Array]:
        """Yield these rows a few MB at a time; as ``take``."""
        step = max(1, BLOCK // max(1, self.row.itemsize))
        for start in range(0, len(rows), step):
            yield self.take(rows[start : start + step])

    def fitted(self, row: Row, known: str) -> Tensors:
        """Return the same rows for a model whose rows are known already.

        Parameters
        ----------
        row : numpy.dtype
            What they must become.
        known : str
            Where it is known from, in words: "this model was trained on".

        Raises
        ------
        ValueError
            Where inputs or shapes are others, or floats would have to become integers: with both, and the remedy.
        """
        if self.row == row:
            return self
        refuse_other_row(self.row, row, self.name, known, self.first)
        return replace(self, row=row)

    def _converted(self, name: str, dtype: np.dtype[Any], rows: Array | slice) -> Array:
        found, wrong = _cast(self.parts[name][rows], dtype)
        if wrong is not None:
            raise self._refused(name, dtype)
        return found

    def _refused(self, name: str, dtype: np.dtype[Any]) -> ValueError:
        """Return the error for the first value of an input that has no place in a row."""
        whole, step, start = self.parts[name], max(1, BLOCK // max(1, self.row.itemsize)), 0
        wrong = None
        while wrong is None:
            given = whole[start : start + step]
            _, wrong = _cast(given, dtype)
            start += step
        row, value = start - step + wrong[0] + self.first, given[wrong]
        what = f"{self.name}[{name!r}]" if name else self.name
        where = f"in row {row}{f' at {list(wrong[1:])}' if len(wrong) > 1 else ''}"
        if dtype.kind != "f":
            return ValueError(f"{what} is {value} {where}, which is no {dtype.name} as the rows of training are")
        if np.isfinite(value):
            return ValueError(
                f"{what} is {value} {where}, too large for {dtype.name}: scale it, or use dtype='float64' in the model"
            )
        return ValueError(f"{what} is {value} {where}: must be finite; replace such values, or drop those rows")


def as_tensors(given: object, name: str, dtype: str, first: int = 0, *, least: int = 1) -> Tensors:
    """Take in rows of any shape: an array, a list of equal ones, a PyTorch tensor, a frame; or a dict or tuple of such, of equal length.

    Parameters
    ----------
    given : array-like, mapping or tuple
        Of real numbers. The inputs of a tuple are called ``"0"``, ``"1"`` and so on.
    name : str
        How errors call it.
    dtype : str
        Of the model, to which floats are brought.
    first : int
        Number of its first row.
    least : int
        How many rows there must be.

    Raises
    ------
    ValueError, TypeError
        For what holds no rows of numbers, with the remedy.

    Examples
    --------
    >>> import numpy as np
    >>> as_tensors(np.zeros((5, 3, 8, 8), "uint8"), "X", "float32").row
    dtype(('u1', (3, 8, 8)))
    >>> as_tensors((np.zeros((2, 4)), np.zeros(2, "int16")), "X", "float32").row.names
    ('0', '1')
    """
    several = several_of(given, name)
    if several is None:
        parts = {ALONE: array_of(given, name)}
        kind = row_of(parts[ALONE], dtype)
    else:
        parts = {key: array_of(each, f"{name}[{key!r}]") for key, each in several.items()}
        refuse_other_lengths({key: len(each) for key, each in parts.items()}, name)
        kind = record_of({key: row_of(each, dtype) for key, each in parts.items()})
    for key, each in parts.items():
        if not all(each.shape[1:]) or len(each) < least:
            what = f"{name}[{key!r}]" if key else name
            raise ValueError(f"{what} has shape {each.shape}: at least one row, and one value a row, are needed")
    return Tensors(parts, kind, name, first)


def several_of(given: Any, name: str) -> dict[str, Any] | None:
    """Return the inputs by name where there are several: of a dict, a tuple or a structured array; else None."""
    if isinstance(given, Mapping):
        strange = [key for key in given if not isinstance(key, str) or not key]
        if strange or not given:
            raise TypeError(
                f"{name} is a dict with the keys {list(given)}: each input needs a name, such as {{'image': ...}}"
            )
        return dict(given)
    if isinstance(given, tuple):
        if not given:
            raise ValueError(f"{name} is an empty tuple: pass at least one input")
        return {str(place): each for place, each in enumerate(given)}
    names = getattr(getattr(given, "dtype", None), "names", None)
    return {each: given[each] for each in names} if names else None


def array_of(given: Any, name: str) -> Array:
    """Return one input as an array of real numbers, a row for each of its first axis; not copied if it is one.

    Raises
    ------
    ValueError, TypeError
        If it is none, with the remedy.
    """
    refuse_pieces(given, name)
    if given is None or isinstance(given, str | bytes | os.PathLike):
        raise TypeError(
            f"{name} is {given!r}: pass the rows themselves, as an array; if it is a file, load it (numpy.load)"
        )
    if isinstance(given, Mapping | tuple):
        raise TypeError(f"{name} is a {type(given).__name__} within another: pass one dict of arrays")
    if type(given).__module__.split(".")[0] == "dask":
        raise TypeError(
            f"{name} is a Dask collection among arrays: pass all inputs as Dask arrays, or {name}.compute()"
        )
    if hasattr(given, "tocsr") or str(getattr(given, "layout", "")).startswith("torch.sparse"):
        raise TypeError(f"{name} is sparse, and this model takes dense arrays: pass {name}.toarray()")
    if hasattr(given, "iloc"):
        found = matrix_of_frame(given, name)
    else:
        try:
            found = plain_array(given)
        except ValueError:
            raise ValueError(
                f"the rows of {name} have different shapes: make them alike; of sequences, scaleml.datasets.padded does"
            ) from None
    if found.dtype.kind not in REAL:
        raise no_numbers(found.dtype, name)
    if found.ndim == 0:
        raise ValueError(f"{name} is one number, but must have rows: pass an array of shape (rows, ...)")
    return found


def no_numbers(dtype: np.dtype[Any], name: str) -> TypeError:
    """Return the error of what holds no real numbers."""
    if name.rsplit(maxsplit=1)[-1] == "y" and dtype.kind in "USOT":
        return TypeError(
            f"{name} has dtype {dtype}, which are labels, but this model's loss is for numbers: choose a loss for classes, such as "
            "loss='cross_entropy', or make numbers of y first"
        )
    more = "make numbers of words first" if dtype.kind in "USOT" else f"convert it with {name}.astype('float32')"
    return TypeError(f"{name} has dtype {dtype}, but a model needs real numbers: {more}")


def plain_array(given: Any) -> Array:
    """Return an array of this process's memory of what has values: lists, pandas' columns, arrays of any library, such as PyTorch's."""
    if isinstance(given, list) and given and not isinstance(given[0], list | int | float | str | None):
        return np.stack([plain_array(each) for each in given])
    if hasattr(given, "detach") and hasattr(
        given, "cpu"
    ):  # a tensor of PyTorch, which may hang on a graph or lie on a GPU
        given = given.detach().cpu()
        given = given.float() if str(given.dtype) == "torch.bfloat16" else given  # which NumPy does not know
        return np.asarray(given.numpy())
    return array_of_column(to_numpy(given) if not hasattr(given, "iloc") else given)


def refuse_other_lengths(lengths: Mapping[str, int], name: str) -> None:
    """Raise ValueError unless all inputs have as many rows."""
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key!r}: {size}" for key, size in lengths.items())
        raise ValueError(
            f"the inputs of {name} have different numbers of rows ({listed}): they must be of the same rows"
        )


def _cast(given: Array, dtype: np.dtype[Any]) -> tuple[Array, tuple[int, ...] | None]:
    """Return values in a dtype, and where the first one is that is not finite, or that it does not have; None where all is well."""
    with np.errstate(all="ignore"):  # what is too large becomes infinite
        found: Array = given.astype(dtype, copy=False)
        if dtype.kind != "f":
            return found, None if np.can_cast(given.dtype, dtype) else _first(found != given)
        # A sum is finite if all is, and is found much faster; only overflow needs the slow look.
        return found, None if np.isfinite(found.sum(dtype=dtype)) else _first(~np.isfinite(found))


def _first(wrong: Array) -> tuple[int, ...] | None:
    places = np.argwhere(wrong)
    return tuple(places[0].tolist()) if len(places) else None
