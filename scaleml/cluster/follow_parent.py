"""Follow the parent: preloaded into the embedded cluster's own processes: when the notebook's process dies, they follow."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import threading
from typing import Final

from scaleml.clock import WALL

PARENT: Final = "SCALEML_EMBEDDED_PARENT"
"""Set by the parent for its children alone: the process id they belong to."""
FOLDER: Final = "SCALEML_EMBEDDED_FOLDER"
"""Set likewise: where their logs and scratch files lie, which nobody else removes when the parent was killed."""
PREFIX: Final = "scaleml-cluster-"
PERIOD: Final = 0.5


def dask_setup(server: object) -> None:
    """Watch the parent from a thread; called by Dask in the scheduler and in each nanny."""
    parent = int(os.environ[PARENT])
    threading.Thread(target=_follow, args=(parent,), name="scaleml-follow-parent", daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        WALL.sleep(PERIOD)
    from scaleml.data.piece_file import sweep

    sweep()
    folder = pathlib.Path(os.environ[FOLDER])
    if folder.name.startswith(PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    # The nanny's worker dies with it: Dask keeps a pipe between the two.
    os.kill(os.getpid(), signal.SIGKILL)
