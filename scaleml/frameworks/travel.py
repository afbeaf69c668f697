"""Whether what users pass can be sent to workers: known before anything is placed."""

from __future__ import annotations

from typing import Any

import cloudpickle

__all__ = ["why_it_stays"]


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, part: Any) -> int:
        return memoryview(part).nbytes


def why_it_stays(part: object) -> Exception | None:
    """Return why a thing cannot be pickled; None if it can.

    Examples
    --------
    >>> why_it_stays({"a": 1}) is None, type(why_it_stays(iter(())) or why_it_stays(x for x in ())).__name__
    (True, 'TypeError')
    """
    try:
        cloudpickle.Pickler(_Nowhere()).dump(part)
    except Exception as error:  # noqa: BLE001  whatever a pickle raises is the answer
        return error
    return None
