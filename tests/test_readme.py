"""The README's code runs, as written."""

import re
from collections.abc import Callable

import pytest

import documents

README = documents.ROOT / "README.md"


@pytest.mark.timeout(300)
def test_the_blocks_run_one_after_the_other(run_page: Callable[..., str]) -> None:
    last = "print('state', run.state, 'best', type(best).__name__, 'labels', labels.shape)"
    # Its shell block makes an environment and runs the tests: `.ci/run` does that.
    assert "state finished best TrainedModel labels (1797,)" in run_page(README, last, skip=("bash",))


def test_its_pictures_are_there() -> None:
    for path in re.findall(r"!\[[^\]]*\]\((?!https:)([^)]+)\)", README.read_text()):
        assert (README.parent / path).is_file(), path
