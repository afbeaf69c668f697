"""Worker processes of the embedded cluster that cannot start: their log is what the error says."""

from __future__ import annotations

from typing import Any

import pytest

from scaleml.cluster import embedded
from scaleml.cluster.embedded_process import EmbeddedProcess
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.nanny_cluster import log_end


class _Unlimited(EmbeddedProcess):
    """One whose worker is told of no memory limit that there is."""

    def __init__(
        self, scheduler: str | None = None, name: object = None, *, folder: str, spec: Any, **how: Any
    ) -> None:
        if scheduler is not None:
            spec = {**spec, "opts": {**spec["opts"], "memory_limit": "as much as it likes"}}
        super().__init__(scheduler, name, folder=folder, spec=spec, **how)


def test_a_worker_that_ends_says_why_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "EmbeddedProcess", _Unlimited)
    # Not after the 60 s that a worker may take to come.
    monkeypatch.setattr(embedded, "START_TIMEOUT", 1e9)
    words = r"worker 0 of the embedded cluster did not start: \w+Error: .*asmuchasitlikes.*; its log ends with:\n"
    with pytest.raises(StartFailed, match=words):
        embedded._Embedded(1)


def test_the_first_of_several_errors_is_the_cause(tmp_path: Any) -> None:
    log = "INFO\nTraceback\n  File\nOSError: [Errno 30] Read-only file system\n\nTraceback\nRuntimeError: Nanny failed to start.\n"
    (tmp_path / "worker-3.log").write_text(log)
    assert (
        log_end(tmp_path, "worker-3")
        == f": OSError: [Errno 30] Read-only file system; its log ends with:\n{log.strip()}"
    )
    (tmp_path / "scheduler.log").write_text("")
    assert log_end(tmp_path, "scheduler") == "; its log ends with:\n"
