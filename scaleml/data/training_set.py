"""Training and validation set: what a user passed, of any kind, becomes a source each; a stager places their rows in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from scaleml.arrays import Array
from scaleml.data.bad_columns import listed
from scaleml.data.class_weights import ClassTally, count
from scaleml.data.collection_source import CollectionSource, collection_sources
from scaleml.data.collections import Table, is_bag, is_collection, refuse_no_table
from scaleml.data.columns import refuse_no_weight
from scaleml.data.dataset_source import DatasetSource, dataset_source
from scaleml.data.map_dataset import MapDataset, unwrapped
from scaleml.data.partition import RowFormat
from scaleml.data.row_dtype import in_words, refuse_other_row
from scaleml.data.source import ArraySource, Source, array_source
from scaleml.data.split import hold_out
from scaleml.data.stager import Stager
from scaleml.data.tensor_source import Known, TensorSource, tensor_source

AnySource = ArraySource | TensorSource | DatasetSource | CollectionSource
HERE: Final = (ArraySource, TensorSource, DatasetSource)
Accept = Callable[[Source, Array | None], Array | None]
"""Takes in what is known of the data and the rows of each class; returns what the rows of each class weigh, None for alike."""


def place_training_set(
    X: object,
    y: object,
    sample_weight: object,
    validation: object,
    form: RowFormat,
    stager: Stager,
    accept: Accept,
) -> ClassTally | None:
    """Have a stager place X, y and weights, and the validation data; return how often each class occurs, None for numbers.

    Parameters
    ----------
    X, y, sample_weight, validation
        As ``train`` takes them; or X, and the validation data, as an ``ArraySource`` that was checked already; or X as
        a ``CollectionSource``, with the rows that are to be held out, if any; then validation data are others, of any kind.
    form : RowFormat
        How the rows are to lie in files.
    stager : Stager
        What brings them there: first those to train on, then those held out, if any.
    accept : callable
        Called before arrays are copied with what is known of X and y, and with the rows to train on of each class (None for
        numbers). Returns what the rows of each class weigh in training, None for alike; raises where the model does not fit.

    Raises
    ------
    ValueError, TypeError
        For data that cannot be trained on, with the remedy.
    """
    aside = checked_validation(_without_loaders(validation) if form.any_shape else validation)
    fraction = aside if isinstance(aside, float) else 0.0
    table = Table(X, y, sample_weight)
    if is_collection(X) and isinstance(aside, list | tuple) and is_collection(aside[0]):
        whole, aside = collection_sources([table, validation_table(aside)], form, stager)
        train: AnySource = whole.coded(whole.found_labels, whole.found_labels)
    else:
        train = _source(table, form, stager, fraction=fraction)
    rows = held_rows = np.zeros(0, np.int64)
    if isinstance(train, HERE):
        rows, held_rows = hold_out(train.rows, fraction, form.seed or 0)
    if fraction:
        sides = (train.rows, train.held) if isinstance(train, CollectionSource) else (len(rows), len(held_rows))
        refuse_empty_side(fraction, *sides)
        if isinstance(train, CollectionSource):
            train.refuse_no_weight_on_a_side()
        elif train.weights is not None:
            for side, what in ((rows, "to train on"), (held_rows, "held out")):
                refuse_no_weight(bool(train.weights[side].any()), f"all {len(side)} rows {what}")
    counts = _counts(train, rows)
    factors = accept(train, counts)
    held_out = None if aside is None or isinstance(aside, float) else _validation_source(aside, train, form, stager)
    if isinstance(train, CollectionSource):
        _keep(train if factors is None else replace(train, factors=factors), stager)
    else:
        stager.write(train if factors is None else train.weighed(factors), rows, form.dtype, "X")
        if fraction:
            stager.write(train, held_rows, form.dtype, "the validation X")
    if isinstance(held_out, CollectionSource):
        stager.keep(held_out.pieces, held_out.runs(held_out=False))
    elif held_out is not None:
        stager.write(held_out, np.arange(held_out.rows), form.dtype, "the validation X")
    return None if counts is None else ClassTally(counts, _held_mass(train, held_rows, held_out))


# Classes.


def _counts(train: AnySource, rows: Array) -> Array | None:
    """Return how many rows to train on each class has."""
    if train.classes is None:
        return None
    if isinstance(train, HERE):
        return count(train.codes[rows], train.classes)
    return train.tally(train.labels)[0] - train.tally(train.labels, held_out=True)[0]


def _held_mass(train: AnySource, rows: Array, other: AnySource | None) -> Array | None:
    """Return the weight of each class among the rows held out: of a part of the training set, or of other data."""
    source = train if other is None else other
    if isinstance(source, CollectionSource):
        mass = source.tally(source.labels, held_out=other is None)[1]
        return mass if mass.any() else None
    if source.classes is None or (other is None and not len(rows)):
        return None
    own = rows if other is None else np.arange(source.rows)
    return count(source.codes[own], source.classes, None if source.weights is None else source.weights[own])


# Sources.


def _source(
    table: Table,
    form: RowFormat,
    stager: Stager,
    *,
    fraction: float = 0.0,
    like: Source | None = None,
    label: str = "y",
) -> AnySource:
    """Return X, y and weights as a source; validation data is to be ``like`` what is trained on."""
    classes = None if like is None else like.classes
    if isinstance(table.X, AnySource):
        return table.X
    if is_collection(table.X):
        (staged,) = collection_sources([table], form, stager, fraction=fraction)
        labels = staged.found_labels if classes is None else classes
        return replace(staged.coded(labels, labels), name=label)
    y, weights = _here(table.y, table.sample_weight, stager)
    if form.any_shape:
        return _of_any_shape(replace(table, y=y, sample_weight=weights), form, like, label)
    return array_source(table.X, y, weights, classifier=form.classifier, classes=classes, name=table.name, label=label)


def _without_loaders(validation: object) -> object:
    """Return validation data in which a dataset is a `MapDataset`, or, if it is of tensors, is these."""
    if validation is None or isinstance(validation, float | tuple | list):
        return validation
    x, y = unwrapped(validation, None, "validation")
    return x if y is None else (x, y)


def _of_any_shape(table: Table, form: RowFormat, like: Source | None, label: str) -> TensorSource | DatasetSource:
    x, y = unwrapped(table.X, table.y, table.name)
    known: Known = {
        "classifier": form.classifier,
        "dtype": form.dtype,
        "classes": None if like is None else like.classes,
        "row": None if like is None else like.row,
        "target": None if like is None else like.target,
        "name": table.name,
        "label": label,
    }
    if isinstance(x, MapDataset):
        return dataset_source(x, table.sample_weight, **known)
    return tensor_source(x, y, table.sample_weight, **known)


def validation_table(validation: Sequence[object] | MapDataset) -> Table:
    """Return (X, y), (X, y, sample_weight) or a dataset as a table."""
    if isinstance(validation, MapDataset):
        return Table(validation, None, None, "the validation X")
    X, y, *weights = validation
    return Table(X, y, weights[0] if weights else None, "the validation X")


def _here(y: object, sample_weight: object, stager: Stager) -> tuple[object, object]:
    """Return y and weights in this process, as X is: what are Dask collections is computed, both together."""
    if isinstance(y, dict | tuple) and is_collection(y):
        named = dict(enumerate(y)) if isinstance(y, tuple) else dict(y)
        found = dict(zip(named, stager.compute(list(named.values())), strict=True))
        y = tuple(found.values()) if isinstance(y, tuple) else found
    columns = {name: values for name, values in (("y", y), ("sample_weight", sample_weight)) if is_collection(values)}
    for name, values in columns.items():
        if is_bag(values):
            refuse_no_table(values, name)
    if columns:
        columns = dict(zip(columns, stager.compute(list(columns.values())), strict=True))
    return columns.get("y", y), columns.get("sample_weight", sample_weight)


def _validation_source(
    validation: AnySource | MapDataset | Sequence[object], train: Source, form: RowFormat, stager: Stager
) -> AnySource:
    """Return validation data as a source; raise unless it has the columns, labels and targets of the training set."""
    if isinstance(validation, HERE):
        return validation
    label = "the validation y"
    if isinstance(validation, CollectionSource):
        held: AnySource = replace(validation.coded(train.classes, train.classes), name=label)
    else:
        held = _source(validation_table(validation), form, stager, like=train, label=label)
    if train.row is not None:
        check_same_rows(held, train)
    elif held.features != train.features:
        raise ValueError(
            f"the validation X has {held.features} columns, X has {train.features}: they must be the same features"
        )
    if held.names is not None and train.names is not None and held.names != train.names:
        raise ValueError(
            f"the validation X has the columns {listed(held.names)}, X has {listed(train.names)}: they must be the same features, in the "
            "same order"
        )
    if train.row is None and held.n_outputs != train.n_outputs:
        raise ValueError(
            f"the validation y has {held.n_outputs} columns, y has {train.n_outputs}: they must be the same targets"
        )
    return held


def check_same_rows(held: Source, train: Source) -> None:
    """Raise ValueError unless held-out rows of any shape are just like those to train on."""
    for what, own, row in (("X", held.row, train.row), ("y", held.target, train.target)):
        if own == row:
            continue
        if own is None or row is None:
            kinds = ["labels" if each is None else f"rows of {in_words(each)}" for each in (own, row)]
            raise ValueError(f"the validation y has {kinds[0]}, y has {kinds[1]}: they must be alike")
        refuse_other_row(own, row, f"the validation {what}", f"{what} has")
        raise ValueError(
            f"the validation {what} has rows of {in_words(own)}, {what} has rows of {in_words(row)}: convert them, .astype(...)"
        )


# Placing.


def _keep(train: CollectionSource, stager: Stager) -> None:
    stager.keep(train.pieces, train.runs(held_out=False), train.options.seed)
    if train.options.fraction:
        stager.keep(train.pieces, train.runs(held_out=True))


# Checks.


def refuse_empty_side(fraction: float, rows: int, held: int) -> None:
    """Raise ValueError where a fraction leaves no rows to train on, or none to hold out."""
    if not rows or not held:
        raise ValueError(
            f"validation={fraction} of {rows + held} rows leaves none on one side: pass more data, or (X, y)"
        )


def checked_validation(validation: object) -> AnySource | MapDataset | Sequence[object] | float | None:
    """Return held-out data, or the fraction of the rows to hold out, as ``train`` takes them; raise for anything else."""
    if validation is None or isinstance(validation, AnySource | MapDataset):
        return validation
    if isinstance(validation, float):
        if not 0 < validation < 1:
            raise ValueError(
                f"validation={validation}: as a number it is the fraction of the rows to hold out, between 0 and 1"
            )
        return validation
    if isinstance(validation, tuple | list):
        if len(validation) in (2, 3):
            return validation
        what = f"a {type(validation).__name__} of {len(validation)}"
    else:
        what = repr(validation) if np.isscalar(validation) else type(validation).__name__
    raise TypeError(
        f"validation={what}: must be (X, y), (X, y, sample_weight), or the fraction of the rows to hold out, such as 0.2"
    )
