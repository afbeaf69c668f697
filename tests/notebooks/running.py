"""Executing a notebook as `make notebooks` does, with an eye on every process that comes of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MARK = "SCALEML_TEST_MARK"


@dataclass(frozen=True)
class Execution:
    """What came of it."""

    notebook: Any
    peak: float
    """The most memory of all processes together, in bytes; what they share counts once. 0 where they were only counted."""
    most: int
    """The most processes at once."""
    left: list[str]
    """Processes that were still there some seconds after the end."""


def execute(
    python: str | Path,
    notebook: Path,
    folder: Path,
    settings: dict[str, Any],
    *,
    within: Any = (),
    weighed: bool = False,
    **how: Any,
) -> Execution:
    """Execute a notebook with small settings in a process of its own.

    Parameters
    ----------
    python : path
        The interpreter of the environment to do it in.
    notebook, folder : Path
        What, and where to leave the result and everything that Jupyter writes.
    settings : dict
        Instead of those in the notebook's cell of parameters.
    within : sequence of str
        A command to do it under.
    weighed : bool
        Whether to look at the memory of its processes, too, several times a second.
    **how
        Environment variables.
    """
    mark = uuid.uuid4().hex
    result = folder / notebook.name
    own = {name: str(folder / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    words = [f"{name}={value!r}" for name, value in settings.items()]
    process = subprocess.Popen(
        [
            *within, python, ROOT / "notebooks" / "execute.py", notebook, "--output", result,
            *(word for setting in words for word in ("--set", setting)),
        ],
        env={**os.environ, **own, MARK: mark, **how},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    with Watch(mark, weighed) as watch:
        said, _ = process.communicate(timeout=400)
    poll(lambda: not marked(mark), 10)
    left = [" ".join(other.cmdline()) for other in marked(mark)]
    for other in marked(mark):
        other.kill()
    assert process.returncode == 0, said

    return Execution(read(result), watch.peak, watch.most, left)


def read(notebook: Path) -> Any:
    """Return a notebook as `nbformat` has it."""
    # Not in every process that only collects; and without a grammar that takes a second to compile, of addresses.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import nbformat

    return nbformat.read(notebook, as_version=4)


class Watch:
    """Looks at all processes of a mark again and again."""

    def __init__(self, mark: str, weighed: bool) -> None:
        self.peak, self.most = 0.0, 0
        self._mark, self._weighed, self._since = mark, weighed, time.time() - 1
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.25 if self._weighed else 1.0):
            found = marked(self._mark, self._since)
            if self._weighed:  # it takes longest
                sizes = [size for process in found if (size := memory(process))]
                self.peak = max(self.peak, sum(sizes))
            self.most = max(self.most, len(found))


def marked(mark: str, since: float = 0.0) -> list[psutil.Process]:
    """All processes since then that inherited the mark, also those in sessions of their own or whose parents died."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.create_time() < since:
                continue
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def memory(process: psutil.Process) -> float:
    """Bytes of a process, of shared ones its share; 0 if it has gone."""
    try:
        return float(process.memory_full_info().pss)
    except (psutil.Error, OSError):
        return 0.0


def poll(condition: Callable[[], Any], deadline: float) -> Any:
    """Ask again and again until the answer is true, and return it; the last answer once the deadline has passed."""
    until, pause = time.monotonic() + deadline, threading.Event()
    while not (answer := condition()) and time.monotonic() < until:
        pause.wait(0.05)
    return answer
