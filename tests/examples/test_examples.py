"""Programs as scikit-learn's users write them, run with its estimators and, the import swapped, with ours.

The programs are in the spirit of scikit-learn's examples for these estimators (``plot_sgd_*``, ``plot_mlp_*``, the classification of
documents). Each leaves ``scores``: name -> a number of which more is better.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

PROGRAMS = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("test_"))
OURS = re.compile(r"^from sklearn\.(linear_model|neural_network) import ([\w, ]+)$", re.MULTILINE)
TOLERANCE = 0.01


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_scores_as_well_with_the_import_swapped(program: Path, tmp_path: Path) -> None:
    swapped = tmp_path / program.name
    text, imports = OURS.subn(r"from scaleml.\1 import \2", program.read_text())
    assert imports
    swapped.write_text(text)
    theirs, names = runpy.run_path(str(program))["scores"], runpy.run_path(str(swapped))
    ours = names["scores"]
    for found in OURS.findall(program.read_text()):
        assert all(names[name].__module__.startswith("scaleml.") for name in found[1].split(", "))
    assert ours.keys() == theirs.keys()
    lower = {name: (score, ours[name]) for name, score in theirs.items() if not ours[name] >= score - TOLERANCE}
    assert not lower, f"(scikit-learn's, ours): {lower}"
