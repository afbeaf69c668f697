"""Runs made of thin air, with known answers: what the telemetry tests and pictures are driven with."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from scaleml.telemetry import History, Ledger
from scaleml.telemetry.place import Place


@dataclass
class FakeRun:
    """The part of a Run that presentation sees."""

    label: str = "Serial()"
    is_serial: bool = False
    workers: int = 1
    threads: int = 1
    hosts: int = 1
    cores: int = 4
    state: str = "finished"
    history: History = field(default_factory=History)
    placing_seconds: float | None = 0.4
    train_seconds: float = 0.0
    n_params: int = 201
    settings: str = ""
    optimizer: str = "SGD(0.1)"
    learning_rate: float = 0.1
    rows_an_update: int = 256
    planned_faults: tuple = ()
    suspect: str = ""
    place: Place | None = None
    total_samples: int | None = None
    error: str | None = None
    score_name: str = "accuracy"
    baseline_score: float | None = None
    params: object = None
    model: object = None
    last_model: object = None
    best_evaluation: int | None = None
    fitted: object = None

    def __post_init__(self):
        self.first_label = self.label

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.history)


def row(rank=0, **values):
    """One history row; what is not given is 0, except that it sums one update and waited for nobody."""
    known = SimpleNamespace(
        step=1, epoch=0, time=0, samples=0, loss=np.nan, staleness=0, compute=0, wait=0, comm=0, apply=0, other=0
    )
    vars(known).update(bytes_sent=0, bytes_received=0, waited_for=-1, updates=1, rank=rank)
    vars(known).update(noise=0, signal=0, noise_weight=0, biased=0)
    unknown = set(values) - set(vars(known))
    assert not unknown, unknown
    vars(known).update(values)
    from scaleml.telemetry import COLUMNS

    return [getattr(known, name) for name in COLUMNS]


def made(
    label,
    workers=1,
    *,
    rate=1000.0,
    seconds=10.0,
    slowness=1.0,
    final=0.2,
    start=0.7,
    comm=0.0,
    straggler=None,
    steps=100,
    evaluations=11,
    staleness=0.0,
    held_out=True,
    **attributes,
):
    """A run of `seconds` at `rate` rows/s whose loss falls as exp(-samples / 1000 slowness) from start to final."""
    run = FakeRun(label=label, workers=workers, train_seconds=seconds, is_serial=label.startswith("Serial"))
    vars(run).update(attributes)
    random = np.random.default_rng(len(label) + workers)
    dt = seconds / steps

    def loss(samples):
        return final + (start - final) * np.exp(-samples / (1000.0 * slowness))

    for step in range(1, steps + 1):
        rows = []
        for rank in range(workers):
            late = 0.0 if straggler is None or rank == straggler else 0.35
            compute = dt * (0.93 - comm - late)
            samples = rate / workers * dt * step
            rows.append(
                row(
                    rank, step=step, epoch=samples * workers / 2000, time=dt * step, samples=samples,
                    loss=loss(samples * workers) * (1 + 0.04 * random.standard_normal()), staleness=staleness,
                    compute=compute, wait=dt * late, comm=dt * comm, apply=dt * 0.05, other=dt * 0.02,
                    bytes_sent=804.0 * (workers > 1), bytes_received=804.0 * (workers > 1),
                    waited_for=-1 if straggler is None or rank == straggler else straggler,
                )
            )  # fmt: skip
        run.history.append_rows(rows)
    if held_out:
        for i in range(evaluations):
            part = i / (evaluations - 1)
            value = loss(rate * seconds * part)
            run.history.add_evaluation(seconds * part, rate * seconds * part, steps * part, value, 1 - value)
    return run


def in_rounds(contenders, rounds=6, spread=0.02):
    """The runs of `made` for every (arguments, settings) of a contender, in so many rounds: each a little slower or faster."""
    found = []
    for number in range(rounds):
        for entry, (label, workers, settings) in enumerate(contenders):
            luck = 1 + spread * np.sin(1 + 5 * number + 3 * entry)
            run = made(label, workers, **{**settings, "rate": settings.get("rate", 1000.0) * luck})
            run.place = Place("one", entry, "round", number, rounds)
            found.append(run)
    return found
