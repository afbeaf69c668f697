"""Comparisons as presentation sees them: a protocol, so that a comparison can draw itself with what draws comparisons."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from scaleml.telemetry.environment import Environment
from scaleml.telemetry.run_like import RunLike
from scaleml.telemetry.verdict.series import Series
from scaleml.telemetry.verdict.verdict import Verdict


class ComparisonLike(Protocol):
    """Runs side by side, with what was found: see `Comparison`."""

    @property
    def runs(self) -> tuple[RunLike, ...]: ...
    @property
    def series(self) -> list[Series]: ...
    @property
    def target(self) -> float | None: ...
    @property
    def environment(self) -> Environment | None: ...
    @property
    def verdict(self) -> Verdict: ...

    def lines(self) -> tuple[tuple[str, ...], list[tuple[str, ...]], str]: ...
    def footnote(self, shown: Collection[str]) -> str: ...
