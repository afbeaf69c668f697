"""The README's code runs, as written."""

import pathlib
import re
import subprocess
import sys

README = pathlib.Path(__file__).parents[1] / "README.md"


def blocks():
    return re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def test_the_blocks_run_one_after_the_other(tmp_path):
    script = tmp_path / "readme.py"
    last = "print('state', run.state, 'best', type(best).__name__, 'labels', labels.shape)"
    script.write_text("\n".join([*blocks(), last]))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=110, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "state finished best TrainedModel labels (1797,)" in done.stdout


def test_its_pictures_are_there():
    for path in re.findall(r"!\[[^\]]*\]\((?!https:)([^)]+)\)", README.read_text()):
        assert (README.parent / path).is_file(), path
