"""A rank's reporter, on a worker that only listens."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from scaleml.cluster import reporter as module
from scaleml.cluster.events import Beat, Left, event_of
from scaleml.cluster.reporter import Reporter


class Worker:
    """Keeps what is logged; its event loop runs nothing by itself."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.state: Any = None
        self.status: Any = None
        self.loop = SimpleNamespace(add_callback=lambda *_: None, call_later=lambda *_: None)

    def log_event(self, topic: str, message: Any) -> None:
        self.events.append(event_of(message))


class Recorder:
    """Has one row, and lets the first who drains it wait before he has it."""

    def __init__(self) -> None:
        self.rows = [b"row"]
        self.drained, self.go_on = threading.Event(), threading.Event()

    def drain(self) -> tuple[bytes, list[Any]]:
        row = self.rows.pop() if self.rows else b""
        if row:
            self.drained.set()
            assert self.go_on.wait(10)
        return row, []

    def drain_epochs(self) -> list[Any]:
        return []


def reporter(worker: Worker, recorder: Recorder) -> Reporter:
    request = SimpleNamespace(run="a-run", generation=0, rank=1)
    made = Reporter(worker, "a-task", SimpleNamespace(request=request))  # type: ignore[arg-type]  # stand-ins
    made.listen_to(recorder)  # type: ignore[arg-type]  # likewise
    return made


def test_the_last_rows_are_told_before_the_end_whoever_drained_them() -> None:
    worker, recorder = Worker(), Recorder()
    made = reporter(worker, recorder)

    def end() -> None:
        made.stop()
        made.send(Left(1, "finished", 7))

    event_loop, rank = threading.Thread(target=made.send_records), threading.Thread(target=end)
    event_loop.start()
    assert recorder.drained.wait(10)
    rank.start()
    rank.join(0.1)  # it would have ended by now, if it did not wait
    recorder.go_on.set()
    event_loop.join(10)
    rank.join(10)
    assert [type(event).__name__ for event in worker.events] == ["Recorded", "Left"]


def test_what_the_runtime_reports_is_an_event_of_the_rank() -> None:
    worker = Worker()
    reporter(worker, Recorder()).report("left", status="stopped", step=3)
    assert worker.events == [Left(1, "stopped", 3)]


def test_it_beats_where_it_has_told_nothing_else_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module, "WALL", SimpleNamespace(now=lambda: now[0]))
    worker, recorder = Worker(), Recorder()
    worker.state = SimpleNamespace(tasks={"a-task": SimpleNamespace(state="long-running")})
    worker.status = SimpleNamespace(name="running")
    recorder.rows.clear()
    made = reporter(worker, recorder)
    for tenth in range(1, 50):
        now[0] = tenth / 10
        if tenth < 20:
            made.report("applied", number=tenth, verb="update", step=1)
        made._tick()
    made.stop()
    now[0] = 100.0
    made._tick()
    assert [event for event in worker.events if isinstance(event, Beat)] == [Beat(1)] * 2, (
        "one a second, when the rest had stopped"
    )
