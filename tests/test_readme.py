"""The README's code runs, as written."""

import re
from pathlib import Path

import documents

README = documents.ROOT / "README.md"


def test_the_blocks_run_one_after_the_other(tmp_path: Path) -> None:
    last = "print('state', run.state, 'best', type(best).__name__, 'labels', labels.shape)"
    # Its shell block makes an environment and runs the tests: `.ci/run` does that.
    assert "state finished best TrainedModel labels (1797,)" in documents.run(README, tmp_path, last, skip=("bash",))


def test_its_pictures_are_there() -> None:
    for path in re.findall(r"!\[[^\]]*\]\((?!https:)([^)]+)\)", README.read_text()):
        assert (README.parent / path).is_file(), path
