"""Telemetry: what a run did and what it cost. Histories, ledgers, comparisons, and how they are shown.

Imports nothing of scaleml outside this package but the clock and the checks. Ranks import it too, so pandas, matplotlib and
rich are imported only by the functions that need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import scaleml.telemetry.display  # noqa: F401  # registers how histories and ledgers are shown
from scaleml.telemetry.history import COLUMNS, History
from scaleml.telemetry.ledger import Ledger

if TYPE_CHECKING:
    from scaleml.telemetry.comparison import Comparison

__all__ = ["COLUMNS", "Comparison", "History", "Ledger"]


def __getattr__(name: str) -> Any:
    if name == "Comparison":
        from scaleml.telemetry.comparison import Comparison

        return Comparison
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
