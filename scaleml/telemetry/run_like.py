"""Runs as presentation sees them: a protocol, so that what is drawn needs nothing of what trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from scaleml.telemetry.history import History
from scaleml.telemetry.place import Place

RUNNING: Final = ("starting", "running", "paused", "recovering")
"""The states of a run that is not over."""


class RunLike(Protocol):
    """One run, live or over.

    Attributes
    ----------
    label : str
        The strategy, as its repr; or the name it was given.
    first_label : str
        That it began with: its colour follows it.
    is_serial : bool
    workers, threads : int
        Ranks that train, and BLAS threads of each.
    cores, hosts : int
        Of all of them together.
    n_params : int
    settings : str
        Optimizer, batch, epochs, in words.
    optimizer : str
        That it began with, as its repr.
    learning_rate : float
        Of that optimizer.
    rows_an_update : int
        Rows that one update of the parameters is computed from.
    planned_faults : tuple of dict
        What was to be broken from the start, as a history's changes describe it.
    suspect : str
        What of the data would explain that it diverged, if it did; "" for nothing.
    place : Place or None
        Where it stands in a comparison of several rounds.
    total_samples : int or None
        Rows that all ranks together will have consumed at the end.
    state : str
        ``starting``, ``running``, ``paused``, ``finished``, ``stopped`` or ``failed``.
    error : str or None
        Why it failed.
    history : History
    train_seconds, placing_seconds : float or None
        The training clock; and what stands beside a cold start.
    score_name : str
        What the held-out score is: ``"accuracy"``, ``"R2"``, or a scorer's name.
    baseline_score : float or None
        What always saying the largest class scores, or the mean of the targets; None if unknown.
    """

    @property
    def label(self) -> str: ...
    @property
    def first_label(self) -> str: ...
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
    def optimizer(self) -> str: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def rows_an_update(self) -> int: ...
    @property
    def planned_faults(self) -> tuple[Mapping[str, object], ...]: ...
    @property
    def suspect(self) -> str: ...
    @property
    def place(self) -> Place | None: ...
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
    @property
    def score_name(self) -> str: ...
    @property
    def baseline_score(self) -> float | None: ...
