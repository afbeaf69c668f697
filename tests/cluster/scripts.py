"""Scripts run as a user runs them, and what is left of them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


def alive(pids: list[int]) -> list[int]:
    """Which of these processes still run; one that nobody has waited for yet does not."""
    living = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                living.append(pid)
    return living


def temporary(folder: Path) -> list[Path]:
    """What is left of the temporary files of a script."""
    return list((folder / "tmp").rglob("*"))


@contextlib.contextmanager
def script(code: str, folder: Path, planted: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """Run a script from a file, as a user does; what it starts puts its temporary files into `folder`.

    Parameters
    ----------
    planted : sequence of str
        Modules that somebody else has put into its working directory, where others may write.
    """
    file = folder / "script.py"
    file.write_text(textwrap.dedent(code))
    (folder / "tmp").mkdir()
    (folder / "shared").mkdir()
    for module in planted:
        (folder / "shared" / f"{module}.py").write_text("raise SystemExit('imported from the working directory')")
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder / "shared",
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
