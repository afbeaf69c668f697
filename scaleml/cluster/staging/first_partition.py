"""First partition: what is wrong in a Dask dataframe whose dtypes no model takes, so that one error says all."""

from __future__ import annotations

from typing import Any

from dask.delayed import delayed
from distributed import Client, futures_of

from scaleml.cluster.current_client import has_client
from scaleml.cluster.placement import Workers
from scaleml.cluster.ready_workers import ready_workers
from scaleml.data.bad_columns import kind_of
from scaleml.data.collections import is_frame
from scaleml.data.columns import matrix_of_frame, refuse_columns
from scaleml.data.sealed import sealed


def check_columns(X: object, client: Client | None, workers: Workers, name: str = "X") -> None:
    """Refuse a Dask dataframe with columns that are no real numbers, naming all that is wrong as far as one partition shows it.

    Missing values, and what objects are, are found only by computing: on the user's cluster, else here, for none is started for an
    error. Where the dtypes are right nothing is computed.

    Raises
    ------
    TypeError
        By column, with the remedies.
    """
    frame: Any = X
    if not is_frame(X) or frame.ndim != 2 or not any(kind_of(dtype) for dtype in frame.dtypes):
        return
    has_cluster = client is not None or has_client()
    if has_cluster or not futures_of(X):
        problems = delayed(sealed(_problems, f"{name} (by its first partition)"), pure=False)
        task = problems(frame.get_partition(0).to_delayed()[0])
        if has_cluster:
            told = ready_workers(client, workers).client.compute(task, sync=True)
        else:
            told = task.compute(scheduler="sync")
        if told:
            raise TypeError(told)
    refuse_columns(frame.dtypes.items(), name)


def _problems(partition: object, name: str) -> str:
    """Return what is wrong with a partition; runs as a Dask task."""
    try:
        matrix_of_frame(partition, name)
    except TypeError as error:
        return str(error)
    return ""
