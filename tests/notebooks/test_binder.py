"""Binder: its files, and the first notebook in a fresh environment on one core within two gigabytes."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from notebooks.running import ROOT, execute

HUB = {
    "JUPYTERHUB_SERVICE_PREFIX": "/user/somebody-abc123/",
    "JUPYTERHUB_USER": "somebody-abc123",
    "JUPYTERHUB_API_URL": "http://127.0.0.1:9/hub/api",
    "JUPYTERHUB_BASE_URL": "/",
}
SMALL = {"EPOCHS": 4, "ROUNDS": 2}
"""On all of its rows: they are what memory is for."""
LIMIT = 2e9
SERVER = 0.25e9
"""What JupyterLab's server, which Binder runs beside the kernel, takes at most (measured: 0.1 to 0.15 GB)."""


def start(*command: str) -> str:
    """What a command says that is started as Binder starts it."""
    return subprocess.run(
        [ROOT / "binder" / "start", *command],
        env={**os.environ, **HUB},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def test_the_dashboard_is_linked_through_the_hub() -> None:
    code = "import dask, distributed; print(dask.config.get('distributed.dashboard.link').format(port=8787, host='x', scheme='http'))"
    assert start(sys.executable, "-c", code).strip() == "/user/somebody-abc123/proxy/8787/status"


def test_the_command_takes_the_place_of_the_script() -> None:
    # A shell in between would not pass the hub's SIGTERM on.
    assert start(sys.executable, "-c", "import os; print(os.getppid())").strip() == str(os.getpid())


def test_its_python_is_one_that_the_package_supports() -> None:
    wanted = re.fullmatch(r"python-3\.(\d+)", (ROOT / "binder" / "runtime.txt").read_text().strip())
    least = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert wanted
    assert least
    assert int(wanted[1]) >= int(least[1])


def test_the_badge_opens_a_notebook_that_is_there() -> None:
    found = re.search(
        r"mybinder\.org/v2/gh/[\w.-]+/[\w.-]+/v[\d.]+\?urlpath=lab/tree/([^)]+)\)", (ROOT / "README.md").read_text()
    )
    assert found
    assert (ROOT / found[1]).is_file()


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of a fresh environment with what Binder would install, and nothing else.

    What is installed here already, in a version that will do, is linked; pip brings the rest, and refuses what does not fit.
    """
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = []
    for line in (ROOT / "binder" / "requirements.txt").read_text().splitlines():
        line, _, _ = line.partition("#")
        if own := re.fullmatch(r"-e \.\[([\w,-]+)\]", line.strip()):
            extras = [project["optional-dependencies"][extra] for extra in own[1].split(",")]
            wanted += [*project["dependencies"], *itertools.chain(*extras)]
        elif line.strip():
            wanted.append(line.strip())
    assert len(wanted) > len(project["dependencies"])
    linked = link_installed(["pip", *wanted], tmp_path / "venv")
    assert {"numpy", "distributed", "jupyterlab", "ipywidgets"} <= linked
    assert not {"pytest", "torch", "playwright"} & linked, "not what Binder installs"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    # From the root, as repo2docker does: the file names the folder that it is called in.
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*pip, "-r", "binder/requirements.txt"],
        cwd=ROOT,
        env=clean,
        check=False,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return python


def link_installed(wanted: Iterable[str], environment: Path) -> set[str]:
    """Link these distributions and all that they need into another environment: packages as folders, with their byte code.

    What else they have is linked file by file: others may have files beside it. The records of what belongs to whom are left out, for
    pip would remove by them what is not this environment's.

    Returns
    -------
    set of str
        The names of the distributions that were linked; what is not installed here is left out, with what only it needs.
    """
    pending, done, linked = [(Requirement(line), "") for line in wanted], set(), set()
    while pending:
        requirement, extra = pending.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if not requirement.specifier.contains(found.version, prereleases=True):
            continue
        if name not in linked:
            linked.add(name)
            files = [Path(file) for file in found.files or () if file.name != "RECORD"]
            packages = {file.parts[0] for file in files if file.parts[1:] == ("__init__.py",)}
            for file in {Path(file.parts[0]) if file.parts[0] in packages else file for file in files}:
                source = Path(os.path.abspath(str(found.locate_file(file))))
                target = environment / source.relative_to(sys.prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.exists() and not target.exists():
                    target.symlink_to(source)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in done:
                done.add((name, extra))
                pending += [(Requirement(line), extra) for line in found.requires or ()]
    return linked


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone can keep a process on one core")
def test_the_first_notebook_runs_there(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    core = min(os.sched_getaffinity(0))
    one_core = f"import os, sys; os.sched_setaffinity(0, {{{core}}}); os.execv(sys.argv[1], sys.argv[1:])"
    within = [python, "-c", one_core, ROOT / "binder" / "start"]
    done = execute(
        python, ROOT / "notebooks" / "01-compare-strategies.ipynb", tmp_path, SMALL, within=within, weighed=True, **HUB
    )
    for cell in done.notebook.cells:
        for output in cell.get("outputs", []):
            assert "Traceback" not in str(output.get("text", "")), f"{cell.source}\n\n{output.text}"
    text = "".join(str(output.get("text", "")) for cell in done.notebook.cells for output in cell.get("outputs", []))
    assert "fewer cores than workers" in text  # so it did run on one
    assert done.peak < LIMIT - SERVER, f"{done.peak / 1e9:.2f} GB in {done.most} processes"
    assert done.peak > 0.2e9, "the kernel and its workers were not seen"
    assert done.left == []
    print(f"peak {done.peak / 1e9:.2f} GB in {done.most} processes")
