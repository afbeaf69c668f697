"""`make lab`: JupyterLab's server comes up with the notebooks, and goes at once."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from notebooks.running import MARK, NOTEBOOKS, ROOT, marked, poll

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """This environment under another name, with the stamps of one in which everything is installed."""
    copy = tmp_path / "venv"
    copy.mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith(".") and part.name != "pyvenv.cfg":
            (copy / part.name).symlink_to(part)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", copy)
    for stamp in (".made", ".installed-lab"):
        (copy / stamp).touch()
    return copy


@pytest.fixture
def server(environment: Path, tmp_path: Path) -> Iterator[Any]:
    """`make lab` in the background on a free port, its output in a file; nothing of it is left."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mark, log = uuid.uuid4().hex, tmp_path / "lab.log"
    own = {
        name: str(tmp_path / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["make", "lab", f"VENV={environment}", f"ARGS=--no-browser --port={port} --ServerApp.port_retries=0"],
            cwd=ROOT,
            env={**os.environ, **own, MARK: mark},
            stdout=out,
            stderr=out,
        )
    try:
        yield process, log, mark
    finally:
        for other in marked(mark):
            other.kill()
        process.wait(10)


def answer_of(address: str) -> bytes:
    """What a server answers; nothing while it refuses."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return bytes(answer.read())
    except urllib.error.URLError:
        return b""


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="make uses virtual environments")
def test_the_server_lists_the_notebooks_and_ends_when_told(server: Any) -> None:
    process, log, mark = server
    found = poll(lambda: re.search(r"(http://127\.0\.0\.1:\d+)/\S*?(token=\w+)", log.read_text()) or process.poll(), 90)
    assert isinstance(found, re.Match), log.read_text()
    contents = poll(lambda: answer_of(f"{found[1]}/api/contents?{found[2]}"), 60)  # it prints before it listens
    assert contents, log.read_text()
    listed = {entry["name"] for entry in json.loads(contents)["content"]}
    assert {path.name for path in NOTEBOOKS} <= listed
    page = f"{found[1]}/lab/tree/{NOTEBOOKS[0].name}?{found[2]}"
    with urllib.request.urlopen(page, timeout=30) as answer:
        assert answer.status == 200
    # Of what make started: the server itself.
    (jupyter,) = [other for other in marked(mark) if "jupyterlab" in other.cmdline()]
    jupyter.terminate()
    process.wait(60)
    poll(lambda: not marked(mark), 30)
    assert marked(mark) == []
