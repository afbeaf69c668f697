"""The ``scaleml`` namespace of ``dask.config``, with its defaults."""

from __future__ import annotations

from typing import Any, Final

import dask
from dask.utils import parse_timedelta

DEFAULTS: Final[dict[str, Any]] = {
    "scaleml": {
        # Seconds for all ranks to enter a run.
        "start-timeout": "60s",
        "comm": {
            # How long a rank waits for another before it asks whether that one is alive.
            "timeout": "30s",
            # Ports the ranks listen on while a run starts, such as "9000:9100"; null for any free port.
            "port-range": None,
            # Whether ranks of one host exchange large payloads through shared memory.
            "shared-memory": True,
        },
    }
}

dask.config.update_defaults(DEFAULTS)


def seconds(key: str) -> float:
    """Return a duration in seconds."""
    return float(parse_timedelta(dask.config.get(f"scaleml.{key}"), default="s"))


def port_range() -> tuple[int, int] | None:
    """Return the first and last port ranks may listen on, or None for any.

    Raises
    ------
    ValueError
        When the setting is not two ports, "first:last".
    """
    value = dask.config.get("scaleml.comm.port-range")
    if value is None:
        return None
    first, _, last = str(value).partition(":")
    if not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last) < 65536):
        raise ValueError(f"scaleml.comm.port-range={value!r}: must be 'first:last', two ports such as '9000:9100'")
    return int(first), int(last)


def shared_memory() -> bool:
    """Return whether ranks may share memory."""
    return bool(dask.config.get("scaleml.comm.shared-memory"))
