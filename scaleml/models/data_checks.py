"""Checks of data against a signature: once a shard, so that the training loop need not."""

from __future__ import annotations

from typing import Any

import numpy as np

from scaleml.arrays import Array, Matrix, is_sparse, namespace
from scaleml.models.base import Signature

__all__ = ["check_data"]


def check_data(signature: Signature, dtype: np.dtype[Any], x: Matrix, y: Array, sample_weight: Array | None) -> None:
    """Raise ValueError unless the data fits; the parameters are those of `Network.check`."""
    if getattr(x, "ndim", 0) != 2 or x.shape[1] != signature.n_features:
        raise ValueError(
            f"X has shape {getattr(x, 'shape', None)}: the model was built for (n, {signature.n_features}); every part "
            "of the data needs the same columns."
        )
    if not is_sparse(x) and hasattr(x, "format"):
        raise ValueError(f"X is sparse in the format {x.format!r}: only CSR can be cut into rows; use X.tocsr().")
    _check_dtype("X", x, dtype)
    _check_finite("X", x.data if is_sparse(x) else x)
    n = x.shape[0]
    wide = signature.task == "regression" and signature.n_outputs > 1
    wanted = (n, signature.n_outputs) if wide else (n,)
    _check_shape("y", y, wanted)
    _check_labels(signature, dtype, y)
    if sample_weight is not None:
        _check_shape("sample_weight", sample_weight, (n,))
        _check_dtype("sample_weight", sample_weight, dtype)
        _check_finite("sample_weight", sample_weight)
        if n and float(sample_weight.min()) < 0:
            raise ValueError(f"sample_weight holds {float(sample_weight.min())!r}: must be at least 0; drop such rows.")


def _check_labels(signature: Signature, dtype: np.dtype[Any], y: Array) -> None:
    if signature.task == "multiclass":
        if y.dtype.kind not in "iu":
            raise ValueError(f"y has dtype {y.dtype}: class codes are integers; encode the labels as 0 to K - 1.")
        low, high, top = (int(y.min()), int(y.max()), signature.n_outputs - 1) if y.shape[0] else (0, 0, 0)
        if low < 0 or high > top:
            raise ValueError(
                f"y holds the label {low if low < 0 else high}: the classes are 0 to {top}; give all classes before "
                "training."
            )
        return
    _check_dtype("y", y, dtype)
    _check_finite("y", y)
    if signature.task == "binary":
        odd = y[(y != 0) & (y != 1)]
        if odd.shape[0]:
            raise ValueError(f"y holds the label {float(odd[0])!r}: the classes are 0 and 1; encode the labels so.")


def _check_shape(name: str, array: Array, wanted: tuple[int, ...]) -> None:
    shape = getattr(array, "shape", None)
    if shape != wanted:
        raise ValueError(f"{name} has shape {shape}: must be {wanted}, one entry a row of X; reshape or cut it.")


def _check_dtype(name: str, array: Matrix, dtype: np.dtype[Any]) -> None:
    if array.dtype != dtype:
        wanted = np.dtype(dtype).name
        raise ValueError(f"{name} has dtype {array.dtype}: the model computes in {wanted}; cast it with astype.")


def _check_finite(name: str, values: Array) -> None:
    bad = ~namespace(values).isfinite(values)
    if bool(bad.any()):
        raise ValueError(
            f"{name} holds {int(bad.sum())} values that are NaN or infinite: all must be finite; impute or drop them."
        )
