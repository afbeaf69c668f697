"""Every code block of every page of the documentation is executed, as written.

Those of frameworks are in `tests/frameworks/test_on_workers.py`, whose workers have imported these.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import documents
from certificates import Authority
from docs import slurm, ssh
from embedded import embedded

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


@pytest.mark.filterwarnings(
    "ignore:Maximum number of iteration reached"
)  # of scikit-learn, after the 20 epochs that it says
@pytest.mark.timeout(300)
def test_from_scikit_learn(run_page: Callable[..., str]) -> None:
    probe = "print('ends', pipeline.score(X_test, y_test) > 0.93, mlp.score(X_test / 16, y_test) > 0.9, clf.score(X / 16, y) > 0.93)"
    out = run_page("from-scikit-learn", probe)
    assert "ends True True True" in out
    assert "['no' 'yes']" in out


@pytest.mark.timeout(300)
def test_from_a_csv(run_page: Callable[..., str]) -> None:
    probe = """
chance = (y_test == "yes").mean()
print("ends", precision > 5 * chance, balanced > 0.75, run.state, "advice" in vars(type(run)))
import numpy, pandas
whole = pandas.read_csv("customers.csv")
print("rows", len(whole), whole.isna().any().sum(), "train alone", len(Z_train) == len(X_train) == 4500)
scaler = prepare.named_transformers_["numbers"][-1]
print("fitted on the training part", numpy.isclose(scaler.mean_[1], X_train["income"].mean()))
print("same", numpy.array_equal(loaded.predict(X_test), classifier.predict(X_test)))
"""
    out = run_page("from-a-csv", probe)
    assert "text in 'city', 'plan': encode" in out
    assert "missing values in 'age'" in out
    assert re.search(r"columns? 'income' \(values of about", out)
    assert "ends True True finished True" in out
    assert "rows 6000 2 train alone True" in out
    assert "fitted on the training part True" in out
    assert "same True" in out


@pytest.mark.timeout(300)
def test_extending(run_page: Callable[..., str]) -> None:
    probe = """
from sklearn.linear_model import PoissonRegressor
peer = PoissonRegressor(alpha=0).fit(X, counts)
print("as scikit-learn", np.abs(run.params[:-1] - peer.coef_).max() < 0.05, abs(run.params[-1] - peer.intercept_) < 0.05)
settings = dict(optimizer=scaleml.SGD(0.25), epochs=1, batch_size=2000)
one = scaleml.train(scaleml.LinearModel(), X, y, strategy=vote, workers=1, **settings)
direction = np.sign(np.append(X.astype("f8").T @ (0.5 - y), (0.5 - y).sum()))
print("signs", np.allclose(one.params, -0.25 * 0.1 * direction))
x = random.normal(size=1001).astype("f4") * 1e3
lost, kept = np.empty_like(x), np.empty_like(x)
payload = UpperHalf().encode(x, lost=lost)
UpperHalf().decode(payload, kept)
print("bound", len(payload) == 2002, (abs(x - kept) <= 2.0**-7 * abs(x)).all(), np.array_equal(lost, x - kept))
for strategy in (scaleml.ParameterServer(compression=UpperHalf()), scaleml.LocalSGD(2, compression=UpperHalf())):
    print("codec", scaleml.train(scaleml.LinearModel(), X, y, strategy=strategy, workers=2).state)
print("compared", [run.state for run in comparison.runs].count("finished") >= 4)
"""
    out = run_page("extending", probe)
    assert "as scikit-learn True True" in out
    assert "signs True" in out
    assert "bound True True True" in out
    assert out.count("codec finished") == 2
    assert "compared True" in out


def test_optimizers() -> None:
    embedded(2)  # the blocks find it
    names: dict[str, Any] = {}
    for block in documents.blocks(documents.ROOT / "docs" / "optimizers.md"):
        exec(block.code, names)
        assert names["run"].state == "finished"
        assert names["run"].model.score(names["X"], names["y"]) > 0.6


def test_guarantees(capsys: pytest.CaptureFixture[str]) -> None:
    embedded(2).wait_for_workers(2, timeout=30)  # the block finds it
    killed, resumed = documents.blocks(documents.ROOT / "docs" / "guarantees.md")
    exec(killed.code, {})
    assert capsys.readouterr().out.startswith("rank 1 replaced: lost at step ")
    exec(resumed.code, {})
    assert "resumed from step" in capsys.readouterr().out


@pytest.mark.timeout(300)
def test_callbacks(run_page: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("tqdm", "tensorboard", "mlflow", "wandb"):
        pytest.importorskip(package)
    probe = """
import glob
print("ends", run.state, len(comparison.runs) >= 4, len(glob.glob("logs/*/events*")), len(glob.glob("logs/wandb/offline-run-*")))
(found,) = mlflow.search_runs(experiment_names=["digits"], output_format="list")
print("mlflow", found.info.status, found.data.metrics["held_out/accuracy"] > 0.8)
"""
    settings = {
        "MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_SILENT": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    out = run_page("callbacks", probe)
    assert "AllReduce() starts with {'strategy': 'AllReduce()'" in out
    assert "stopped None (650,)" in out
    assert re.search(r"contender \d in round 2: AllReduce\(\), 0", out)
    assert "ends stopped True 2 1" in out
    assert "mlflow FINISHED True" in out
    assert "Warning" not in out


@pytest.mark.timeout(300)
def test_from_dask_ml(run_page: Callable[..., str]) -> None:
    probe = "print('ends', *(est.score(sample_X, sample_y) > 0.85 for est in (clf, glm, best)))"
    assert "ends True True True" in run_page("from-dask-ml", probe)


@pytest.mark.timeout(300)
def test_verdict(run_page: Callable[..., str]) -> None:
    probe = "print('ends', comparison.table()['rounds'].tolist(), comparison.table()['learning_rate'].tolist())"
    out = run_page("verdict", probe)
    assert "ends [5, 5, 5" in out
    assert "0.5]" in out  # a strategy that averages keeps the rate
    assert "Measured in 5 rounds" in out
