"""Where a rank's communication time goes."""

from __future__ import annotations

Reading = tuple[float, float, int, int, list[float]]
"""Seconds of waiting and of the rest, bytes sent and received, and waiting by peer."""

SHORT_WAIT = 20e-6
"""Seconds: being blocked for less is the wire's latency, not a slow peer."""


class Meter:
    """Seconds and bytes of one rank's communication since the last ``reset``.

    Parameters
    ----------
    size : int
        Number of ranks of the root group.

    Attributes
    ----------
    wait : float
        Seconds blocked until a peer that was not ready sent its first header of an operation.
    comm : float
        All other seconds inside calls. ``wait + comm`` is the wall time of the calls.
    bytes_sent, bytes_received : int
        Headers and payloads, over sockets or through shared memory.
    waited : list of float, length `size`
        ``wait`` by the peer that kept us waiting last. Split groups count here too, by root rank.

    Examples
    --------
    >>> meter = Meter(2)
    >>> meter.account(seconds=0.5, blocked=0.3, peer=1)
    >>> meter.waited
    [0.0, 0.3]
    """

    __slots__ = ("bytes_received", "bytes_sent", "comm", "wait", "waited")

    def __init__(self, size: int) -> None:
        self.waited = [0.0] * size
        self.reset()

    def reset(self) -> None:
        """Start again from zero."""
        self.wait = self.comm = 0.0
        self.bytes_sent = self.bytes_received = 0
        self.waited[:] = [0.0] * len(self.waited)

    def reading(self) -> Reading:
        """Return what it shows now."""
        return self.wait, self.comm, self.bytes_sent, self.bytes_received, [*self.waited]

    def set(self, reading: Reading) -> None:
        """Have it show what it showed before: nothing of what happened since counts."""
        self.wait, self.comm, self.bytes_sent, self.bytes_received, self.waited[:] = reading

    def account(self, seconds: float, blocked: float, peer: int) -> None:
        """Add a call of `seconds`, of which `blocked` were spent until the last header, from `peer`, came."""
        if blocked > SHORT_WAIT:
            self.wait += blocked
            self.comm += seconds - blocked
            self.waited[peer] += blocked
        else:
            self.comm += seconds
