"""Every code block of every page of the documentation is executed, as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import documents
from certificates import Authority
from docs import slurm, ssh

PAGES = sorted((documents.ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_block_is_of_a_kind_that_is_not_run(page: Path) -> None:
    assert {block.language for block in documents.blocks(page)} <= {"python", "bash", "text"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.is_file(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
        assert not heading or heading in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], target


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_on_your_cluster(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for who in ("scheduler", "worker", "client"):
        authority.certify(who)
    commands = slurm.install(tmp_path / "bin")
    page = documents.ROOT / "docs" / "on-your-cluster.md"
    with ssh.server(tmp_path, "node0", "node1", "node2"):
        out = documents.run(
            page,
            tmp_path,
            "print('ends', search.score(X, y) > 0.9)",
            "from docs.stand_ins import install; install()",
            PATH=str(commands),
        )
    assert "#SBATCH -p normal" in out
    assert "ends True" in out


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_from_scikit_learn(tmp_path: Path) -> None:
    probe = "print('ends', pipeline.score(X_test, y_test) > 0.93, mlp.score(X_test / 16, y_test) > 0.9, clf.score(X / 16, y) > 0.93)"
    out = documents.run(documents.ROOT / "docs" / "from-scikit-learn.md", tmp_path, probe)
    assert "ends True True True" in out
    assert "['no' 'yes']" in out


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_from_dask_ml(tmp_path: Path) -> None:
    probe = "print('ends', *(est.score(sample_X, sample_y) > 0.85 for est in (clf, glm, best)))"
    assert "ends True True True" in documents.run(documents.ROOT / "docs" / "from-dask-ml.md", tmp_path, probe)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_verdict(tmp_path: Path) -> None:
    probe = "print('ends', comparison.table()['rounds'].tolist(), comparison.table()['learning_rate'].tolist())"
    out = documents.run(documents.ROOT / "docs" / "verdict.md", tmp_path, probe)
    assert "ends [5, 5, 5, 5" in out
    assert "0.25]" in out  # the local strategy's rate, for half of the rows
    assert "Measured in 5 rounds" in out
