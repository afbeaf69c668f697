"""Runs as presentation sees them: a protocol, so that what is drawn needs nothing of what trains."""

from __future__ import annotations

from typing import Protocol

from scaleml.telemetry.history import History


class RunLike(Protocol):
    """One run, live or over.

    Attributes
    ----------
    label : str
        The strategy, as its repr.
    is_serial : bool
    workers, threads : int
        Ranks that train, and BLAS threads of each.
    cores, hosts : int
        Of all of them together.
    n_params : int
    settings : str
        Optimizer, batch, epochs, in words.
    total_samples : int or None
        Rows that all ranks together will have consumed at the end.
    state : str
        ``starting``, ``running``, ``paused``, ``finished``, ``stopped`` or ``failed``.
    error : str or None
        Why it failed.
    history : History
    train_seconds, placing_seconds : float or None
        The training clock; and what stands beside a cold start.
    """

    @property
    def label(self) -> str: ...
    @property
    def is_serial(self) -> bool: ...
    @property
    def workers(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def cores(self) -> int: ...
    @property
    def hosts(self) -> int: ...
    @property
    def n_params(self) -> int: ...
    @property
    def settings(self) -> str: ...
    @property
    def total_samples(self) -> int | None: ...
    @property
    def state(self) -> str: ...
    @property
    def error(self) -> str | None: ...
    @property
    def history(self) -> History: ...
    @property
    def train_seconds(self) -> float | None: ...
    @property
    def placing_seconds(self) -> float | None: ...
