"""Follow the parent: preloaded into the embedded cluster's own processes: when the notebook's process dies, they follow."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from typing import Final

from scaleml.clock import WALL
from scaleml.owned_files import stem, sweep

PARENT: Final = "SCALEML_EMBEDDED_PARENT"
"""Set by the parent for its children alone: the process id they belong to."""
PERIOD: Final = 0.5
_END: Final = 2.0
"""Seconds for a killed worker to be gone."""


def dask_setup(server: object) -> None:
    """Watch the parent from a thread; called by Dask in the scheduler and in each nanny."""
    if sys.platform == "linux":
        # A nanny's semaphores have names as long as it lives: ours, for who kills it with all its children leaves them.
        multiprocessing.current_process()._config["semprefix"] = f"/{stem('semaphore')}"  # type: ignore[attr-defined]
    parent = int(os.environ[PARENT])
    threading.Thread(target=_follow, args=(parent,), name="scaleml-follow-parent", daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        WALL.sleep(PERIOD)
    for worker in multiprocessing.active_children():  # it would follow its nanny, but only after we have swept
        worker.kill()
        worker.join(_END)
    sweep()
    os.kill(os.getpid(), signal.SIGKILL)
