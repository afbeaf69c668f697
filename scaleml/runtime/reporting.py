"""What a rank tells the run's supervisor."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """``report(kind, **facts)``: tells what happened, at once; plain Python values only."""

    def __call__(self, kind: str, **facts: object) -> None: ...
