"""Links between workers as they were measured: who reaches whom, by which address, at what latency and bandwidth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from scaleml.telemetry.formatting import seconds, size

if TYPE_CHECKING:
    import pandas as pd


@final
@dataclass(frozen=True)
class Link:
    """The link between two workers.

    Parameters
    ----------
    workers : (str, str)
        Their addresses: the one that listens, and the one that dials.
    at : str
        Host and port that were dialled.
    latency : float
        Seconds that a message of 8 bytes takes one way: half the median round trip. NaN if nothing came.
    bandwidth : float
        Bytes a second of the largest message that was tried, up to 4 MB. NaN if nothing came.
    same_host : bool
        Whether the two share memory.
    error : str
        Why there is no link; "" if there is one.
    """

    workers: tuple[str, str]
    at: str
    latency: float = math.nan
    bandwidth: float = math.nan
    same_host: bool = False
    error: str = ""


@final
@dataclass(frozen=True)
class Links:
    """The links of a cluster.

    Parameters
    ----------
    workers : tuple of str
        Addresses of the workers between which was measured: all, or of a large cluster some.
    links : tuple of Link
        One a pair, and the failed ones of those that were dialled the other way, too.

    Examples
    --------
    >>> links = Links(("a", "b"), (Link(("a", "b"), "10.0.0.1:9000", 5e-5, 1.1e9),))
    >>> links.latency.tolist()
    [[nan, 5e-05], [5e-05, nan]]
    >>> links.typical(same_host=False)
    (5e-05, 1100000000.0)
    """

    workers: tuple[str, ...] = ()
    links: tuple[Link, ...] = field(default=())

    @property
    def latency(self) -> NDArray[np.float64]:
        """Seconds one way between each two workers, (n, n); NaN where there is no link."""
        return self._matrix([link.latency for link in self.links])

    @property
    def bandwidth(self) -> NDArray[np.float64]:
        """Bytes a second between each two workers, (n, n); NaN where there is no link."""
        return self._matrix([link.bandwidth for link in self.links])

    @property
    def failed(self) -> tuple[Link, ...]:
        """Those that could not be made."""
        return tuple(link for link in self.links if link.error)

    def typical(self, *, same_host: bool) -> tuple[float, float]:
        """Return the medians of latency and bandwidth within hosts, or between them; NaN where there are no such links."""
        found = [
            (link.latency, link.bandwidth) for link in self.links if link.same_host == same_host and not link.error
        ]
        if not found:
            return math.nan, math.nan
        latency, bandwidth = np.median(found, axis=0)
        return float(latency), float(bandwidth)

    def table(self) -> pd.DataFrame:
        """Return one row a link: listener, dialler, at, latency_s, bandwidth (bytes a second), same_host, error."""
        import pandas as pd

        rows = [
            (*link.workers, link.at, link.latency, link.bandwidth, link.same_host, link.error) for link in self.links
        ]
        return pd.DataFrame(rows, columns=["listener", "dialler", "at", "latency_s", "bandwidth", "same_host", "error"])

    def lines(self, names: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return heading and cells of the n x n table: latency above the diagonal, bandwidth below it.

        Parameters
        ----------
        names : sequence of str
            What to call the workers.
        """
        latency, bandwidth, failed = self.latency, self.bandwidth, {frozenset(link.workers) for link in self.failed}

        def cell(i: int, j: int) -> str:
            if i == j:
                return "\\"
            if frozenset((self.workers[i], self.workers[j])) in failed:
                return "none"
            return (
                seconds(latency[i, j])
                if i < j
                else f"{size(bandwidth[i, j])}{'/s' * bool(np.isfinite(bandwidth[i, j]))}"
            )

        count = range(len(self.workers))
        return ("", *names), [(names[i], *(cell(i, j) for j in count)) for i in count]

    def _matrix(self, values: Sequence[float]) -> NDArray[np.float64]:
        found = np.full((len(self.workers), len(self.workers)), np.nan)
        place = {worker: number for number, worker in enumerate(self.workers)}
        for link, value in zip(self.links, values, strict=True):
            if not link.error:
                i, j = (place[worker] for worker in link.workers)
                found[i, j] = found[j, i] = value
        return found
