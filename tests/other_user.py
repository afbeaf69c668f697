"""Another user of this machine: processes for tests that give up all rights before they do anything."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

NOBODY = 65534
ROOT = Path(__file__).parents[1]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")

_DROP = f"""
import os
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
os.chdir("/")
"""


def start(imports: str, code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process that runs `code` as nobody; what it imports it does before, while it may read everything."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import encodings.idna, {imports}\n{_DROP}{textwrap.dedent(code)}", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def run(imports: str, code: str, *arguments: object, timeout: float = 60) -> str:
    """Run `code` as nobody, and return what it prints."""
    with start(imports, code, *arguments) as process:
        out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out
