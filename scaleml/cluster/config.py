"""Configuration: the ``scaleml`` namespace of ``dask.config``, with its defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import dask
from dask.utils import parse_bytes, parse_timedelta

from scaleml.checks import check_number

DEFAULTS: Final[dict[str, object]] = {
    "scaleml": {
        # Seconds for all ranks to enter a run.
        "start-timeout": "60s",
        "recovery-timeout": "60s",
        # How long ranks keep what they have for a client that has lost its connection to the scheduler.
        "client-timeout": "30s",
        # Share of its worker's memory limit that a rank's data may take; what is larger is read from disk as it is needed.
        "memory-share": 0.25,
        # Size up to which what a function of spmd returns on a rank goes back to the client.
        "result-limit": "256 MiB",
        "comm": {
            # How long a rank is not heard before it is looked into whether its process is stopped.
            "timeout": "30s",
            # Ports the ranks listen on while a run starts, such as "9000:9100"; null for any free port.
            "port-range": None,
            # Whether ranks of one host exchange large payloads through shared memory.
            "shared-memory": True,
        },
    }
}

dask.config.update_defaults(DEFAULTS)


def _get(key: str) -> object:
    # The end of a ``dask.config.set`` that was entered before the defaults were known takes them away again.
    return dask.config.get(f"scaleml.{key}", default=dask.config.get(f"scaleml.{key}", config=DEFAULTS))


def seconds(key: str) -> float:
    """Return a duration in seconds.

    Raises
    ------
    ValueError
        When the setting is no duration.
    """
    value = _get(key)
    if not isinstance(value, str | int | float | timedelta):
        raise ValueError(f"scaleml.{key}={value!r}: must be a duration such as '30s', or a number of seconds")
    return float(parse_timedelta(value, default="s"))


def port_range() -> tuple[int, int] | None:
    """Return the first and last port ranks may listen on, or None for any.

    Raises
    ------
    ValueError
        When the setting is not two ports, "first:last".
    """
    value = _get("comm.port-range")
    if value is None:
        return None
    first, _, last = str(value).partition(":")
    if not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last) < 65536):
        raise ValueError(f"scaleml.comm.port-range={value!r}: must be 'first:last', two ports such as '9000:9100'")
    return int(first), int(last)


def shared_memory() -> bool:
    """Return whether ranks may share memory."""
    return bool(_get("comm.shared-memory"))


def memory_share() -> float:
    """Return the share of a worker's memory limit that a rank's data may take.

    Raises
    ------
    ValueError
        When the setting is no number from 0 to 1.
    """
    rule = "a number from 0 (always read from disk) to 1"
    return check_number("scaleml.memory-share", _get("memory-share"), 0, 1, rule=rule)


def result_limit() -> int:
    """Return how many bytes a rank of a program may return.

    Raises
    ------
    ValueError
        When the setting is no size.
    """
    value = _get("result-limit")
    try:
        return int(parse_bytes(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, AttributeError):
        raise ValueError(
            f"scaleml.result-limit={value!r}: must be a size such as '256 MiB', or a number of bytes"
        ) from None
