"""Costs: the table that says what talking takes in simulated time.

The model is that of latency and bandwidth (alpha-beta): `n` bytes over a link take ``a + n / b`` seconds, whatever else goes on.

Hockney, The communication challenge for MPP: Intel Paragon and Meiko CS-2, Parallel Computing 20, 1994.
Thakur, Rabenseifner and Gropp, Optimization of collective communication operations in MPICH, IJHPCA 19, 2005.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, final

from scaleml.comm.conventions import INLINE

Formula = Callable[[int, Sequence[int]], float]
"""Seconds of a collective by its bytes and the number of each rank's host."""


@final
@dataclass(frozen=True)
class Costs:
    """What messages and collectives cost.

    For p ranks, n bytes, the latency a and the bandwidth b of the slowest link between them (that between hosts, if there are several), and
    s bytes summed a second:

    ======================  =========================================================================================
    barrier                 a ceil(log2 p)
    allreduce direct        n <= 64 KB: a + (p - 1) n / b + (p - 1) n / s, else 2 a + 2 (p - 1) / p n / b + (p - 1) / p n / s
    reduce                  the same
    broadcast               a + (p - 1) n / b
    allgather               a + (p - 1) n / b, n from each
    reduce_scatter          a + (p - 1) / p n / b + (p - 1) / p n / s
    allgather_bytes         a + n / b, n the most that one rank gets
    exchange                a + n / b, n the most that one rank sends
    send_receive            for each block that comes a + n / b, where it has the link to itself, + n / s where it is added
    ======================  =========================================================================================

    The other topologies of an all-reduce have no formula: their algorithms run, on simulated links of these costs.

    One rank alone pays nothing.

    Parameters
    ----------
    latency, bandwidth : float
        Seconds, and bytes a second, of a link between two ranks of one host.
    latency_between, bandwidth_between : float
        Those of a link between hosts.
    summing : float
        Bytes of a vector that a rank adds to another a second.
    look : float
        Seconds of a look for a message that finds none, so that whoever looks for ever gets older.
    formulas : mapping, optional
        Measured ones, by the names above but for the last, or "allreduce ring" and so on, instead of these: functions of the bytes
        and of the number of each rank's host.

    Examples
    --------
    >>> costs = Costs(latency=1e-6, bandwidth=1e9)
    >>> round(costs.collective("allreduce direct", 8_000_000, [0] * 8) * 1e6, 3)
    14002.0
    >>> Costs(formulas={"barrier": lambda nbytes, hosts: 0.5}).collective("barrier", 0, [0, 0])
    0.5
    """

    latency: float = 5e-6
    bandwidth: float = 5e9
    latency_between: float = 50e-6
    bandwidth_between: float = 1.25e9
    summing: float = inf
    look: float = 1e-6
    formulas: Mapping[str, Formula] = field(default_factory=dict)

    def link(self, same_host: bool) -> tuple[float, float]:
        """Return latency and bandwidth of the link between two ranks."""
        return (self.latency, self.bandwidth) if same_host else (self.latency_between, self.bandwidth_between)

    def collective(self, name: str, nbytes: int, hosts: Sequence[int]) -> float:
        """Return the seconds from the last rank's arrival until all have what they want."""
        formula = self.formulas.get(name)
        if formula is not None:
            return formula(nbytes, hosts)
        if len(hosts) == 1:
            return 0.0
        latency, bandwidth = self.link(len(set(hosts)) == 1)
        return _FORMULAS[name](len(hosts), nbytes, latency, 1 / bandwidth, 1 / self.summing)


def _direct(p: int, n: int, a: float, b: float, s: float) -> float:
    if n <= INLINE:
        return a + (p - 1) * n * (b + s)
    return 2 * a + (p - 1) / p * n * (2 * b + s)


_FORMULAS: Final[dict[str, Callable[[int, int, float, float, float], float]]] = {
    "barrier": lambda p, n, a, b, s: a * (p - 1).bit_length(),
    "allreduce direct": _direct,
    "reduce": _direct,
    "broadcast": lambda p, n, a, b, s: a + (p - 1) * n * b,
    "allgather": lambda p, n, a, b, s: a + (p - 1) * n * b,
    "reduce_scatter": lambda p, n, a, b, s: a + (p - 1) / p * n * (b + s),
    "allgather_bytes": lambda p, n, a, b, s: a + n * b,
    "exchange": lambda p, n, a, b, s: a + n * b,
}
"""By ranks, bytes, seconds of latency, seconds a byte, seconds a byte summed."""
