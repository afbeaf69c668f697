"""Fixtures for all tests."""

import gc
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from _pytest.doctest import DoctestModule
from threadpoolctl import threadpool_limits

import leaks as guards

ROOT = Path(__file__).parent
FIRST = (
    "notebooks", "docs", "test_readme.py", "hosts",
    "runtime", "family", "estimators", "dask_data", "api", "lab", "cluster", "frameworks", "callbacks", "comm",
)  # fmt: skip
"""What of this folder begins first: with the longest files, so that no processor waits for one of them at the end, and then those
that share an embedded cluster, one size after the other, for each change of its size starts it again."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(item.path))  # stable: files, and the tests of each, stay in their order


def _place(path: Path) -> int:
    part = path.relative_to(ROOT).parts[0] if path.is_relative_to(ROOT) else ""
    return FIRST.index(part) if part in FIRST else len(FIRST)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Look for doctests in the package alone: here are none, and to look would run the programs in `examples`, in every process."""
    found = yield
    return [collector for collector in found if not isinstance(collector, DoctestModule)]


def pytest_collection_finish() -> None:
    """Have the garbage collector leave alone what is there to the end: tests that call it took half their time for that."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """As ranks of a run have: then the same sums have the same bits, and no thread spins beside tests of other processes."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def frozen() -> None:
    """As at the end of the collection, for files whose tests call the collector: before them frameworks were imported and clusters run.

    Half a second a test it took after those, of which next to nothing is left.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def leaks() -> Callable[..., AbstractContextManager[None]]:
    """Make guards: ``with leaks(): ...`` fails if the block leaves a thread, a socket or a segment behind."""
    return guards.guard


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Guard the whole test, set-up of its other fixtures excluded."""
    with guards.guard():
        yield


@pytest.fixture
def run_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a page, and a probe behind it, in this process and on the shared embedded cluster; what was printed."""

    def run(name: str, probe: str) -> str:
        import documents
        from embedded import embedded

        embedded(2)  # the blocks find it
        monkeypatch.setenv("HOME", str(tmp_path))
        documents.run_here(documents.ROOT / "docs" / f"{name}.md", tmp_path, probe)
        return "".join(capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One JupyterLab server and one browser for all tests that look at notebooks."""
    missing = [name for name in ("playwright", "jupyterlab") if find_spec(name) is None]
    missing += [] if shutil.which("chromium") else ["a chromium on the PATH"]
    if missing and os.environ.get("CI") != "true":  # there it has to be installed: the fixture then fails
        pytest.skip(f"no browser tests without {' and '.join(missing)}")
    from lab import browser

    with browser.jupyter(tmp_path_factory.mktemp("jupyter")) as server:
        yield server
