"""Runs what a page of documentation shows: its Python blocks in one namespace, its shell blocks between them.

``python -m documents page.md`` runs a page in the working folder, as a reader would in a notebook. A shell block that starts
Dask processes runs on in the background to the end of the page; any other must succeed. `run_here` runs one in this process: imports
and a cluster of its own are two thirds of what a page costs.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LASTING = re.compile(r"^dask (scheduler|worker)\b", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its code, the line where that begins."""

    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Return all fenced blocks of a page."""
    text = page.read_text()
    return [Block(m[1], m[2], text[: m.start(2)].count("\n") + 1) for m in FENCE.finditer(text)]


def run(
    page: Path, folder: Path, probe: str = "", prelude: str = "", skip: tuple[str, ...] = (), **environment: str
) -> str:
    """Run a page in a process of its own and return what it printed; fail with its traceback.

    Parameters
    ----------
    folder : Path
        Where it runs, with its home and its temporary files.
    probe : str
        Python that runs after the last block, in the same namespace.
    prelude : str
        Python that runs before the first block, in a namespace of its own.
    skip : tuple of str
        Languages whose blocks are left out.
    **environment : str
        Variables to set.
    """
    temporary = folder / "tmp"
    temporary.mkdir()
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.pop("PATH", ""), os.environ["PATH"]])
    log = folder / "page.log"
    # Into a file: whoever is left of a page's processes would keep a pipe open.
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "documents", str(page), probe, prelude, *skip],
            stdout=file,
            stderr=file,
            cwd=folder,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
                "PYTHONUNBUFFERED": "1",
                "HOME": str(folder),
                "TMPDIR": str(temporary),
                **environment,
                "PATH": path,
            },
        )
    try:
        process.wait(280)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what its shell blocks started
    assert process.wait() == 0, f"{page.name}:\n{log.read_text()}"
    return log.read_text()


def run_here(page: Path, folder: Path, probe: str = "") -> None:
    """Run a page in this process, as its ``__main__`` and in this working folder, where the current cluster is the embedded one.

    What it defines travels to workers and child processes as from a notebook: the module has no file.
    """
    main, before = ModuleType("__main__"), sys.modules["__main__"]
    sys.modules["__main__"] = main
    try:
        with contextlib.chdir(folder):
            _execute(page, vars(main), probe)
    finally:
        sys.modules["__main__"] = before


def _shell(block: Block) -> None:
    process = subprocess.Popen(["bash", "-euc", block.code])
    if not LASTING.search(block.code) and process.wait():
        raise SystemExit(f"line {block.line}: the shell block ended with {process.returncode}")


def _execute(page: Path, names: dict[str, Any], probe: str, *skip: str) -> None:
    for block in blocks(page):
        print(f"-- line {block.line}")
        if block.language == "bash" and "bash" not in skip:
            _shell(block)
        elif block.language == "python":
            # As many lines down as on the page: a traceback names the right one.
            exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), names)
    exec(probe, names)


def _main(page: str, probe: str, prelude: str, *skip: str) -> None:
    exec(prelude, {})
    _execute(Path(page), {"__name__": "__main__"}, probe, *skip)


if __name__ == "__main__":
    _main(*sys.argv[1:])
