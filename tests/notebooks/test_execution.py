"""The notebooks run, small: no error, no warning, nothing left behind; their own assertions hold. The first one: `test_binder`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from notebooks.running import NOTEBOOKS, execute

SMALL: dict[str, dict[str, Any]] = {
    "02": {"EPOCHS": 12, "TARGET": 0.5, "RATES": [0.1, 0.8]},
    "03": {"ROWS": 16_000},
    "04": {"ROWS": 128, "EPOCHS": 1, "ROUNDS": 1},
}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    done = execute(sys.executable, path, tmp_path, SMALL[path.name[:2]])
    for cell in done.notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", f"{cell.source}\n\n{output.text}"
    assert done.most >= 5, "the script, the kernel, a scheduler or its client's process, two workers"
    assert done.left == []
