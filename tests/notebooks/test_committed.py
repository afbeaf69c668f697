"""The notebooks as they are committed: what a reader sees without running anything."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from notebooks.running import NOTEBOOKS, ROOT, read

# Folders of whoever executed it, and addresses of their machine.
PATHS = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|Users|usr|opt|var|private|mnt|work|workspace)/|[A-Z]:\\\\|file://")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> Any:
    return read(path)


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_all_four_are_there() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04"]


def test_it_is_small_and_valid(path: Path, notebook: Any) -> None:
    import nbformat

    nbformat.validate(notebook)
    assert path.stat().st_size < 300_000


def test_it_was_executed_from_top_to_bottom(notebook: Any) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_nothing_went_wrong_in_it(notebook: Any) -> None:
    assert outputs(notebook)
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text


def test_it_names_no_folder_of_anybody(path: Path) -> None:
    text = re.sub(r"data:image/png;base64,[^\"\\]*|\"image/png\": \"[^\"]*\"", "", path.read_text())
    assert not PATHS.findall(text)


def test_its_metadata_holds_nothing_of_one_run(notebook: Any) -> None:
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)


def test_what_it_shows_needs_no_kernel(notebook: Any) -> None:
    for output in outputs(notebook):
        kinds = set(output.get("data", {}))
        assert output.output_type == "stream" or kinds & {"text/html", "image/png", "text/plain"}
        assert not kinds & {"application/vnd.jupyter.widget-view+json", "application/javascript"}
    pictures = [output for output in outputs(notebook) if "image/png" in json.dumps(output.get("data", {}))]
    assert pictures


def test_prose_comes_first_and_closes_every_picture(notebook: Any) -> None:
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown"
    assert kinds.count("markdown") >= 0.7 * kinds.count("code")
    assert sum("**Takeaway.**" in cell.source for cell in notebook.cells if cell.cell_type == "markdown") >= 2
    opening = notebook.cells[0].source
    assert re.search(r"second", opening), "the run time"
    assert re.search(r"cores of an", opening), "the hardware"


def test_its_links_lead_somewhere(path: Path, notebook: Any) -> None:
    for cell in notebook.cells:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", cell.source if cell.cell_type == "markdown" else ""):
            assert (path.parent / link).exists(), link


def test_the_script_names_them_in_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for notebook in NOTEBOOKS:
        assert f"notebooks/{notebook.name}" in readme
