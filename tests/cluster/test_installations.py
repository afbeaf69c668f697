"""Workers that lack what runs need, beside two that have it, under a scheduler without scaleml: refused beforehand, by name."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client
from distributed.security import Security

import scaleml
from certificates import Authority
from cluster.conftest import Problem, poll
from cluster.harness import compare
from cluster.shell import Shell
from scaleml.__main__ import main
from scaleml.cluster.errors import StartFailed

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests' folder
PACKAGE = Path(scaleml.__file__).parent
GOOD = ["good-0", "good-1"]


@dataclass
class Mixed:
    """A TLS cluster of workers with and without scaleml."""

    client: Client
    scheduler_file: Path
    tls: dict[str, Path]
    pids: dict[str, int]
    names: dict[str, str]

    def address(self, name: str) -> str:
        return next(address for address, own in self.names.items() if own == name)


def name_of(dask_worker: Any) -> str:
    return str(dask_worker.name)


def installed(folder: Path, change: Callable[[Path], None]) -> str:
    """Copy the package as it is not here, and return the folder to put on the path."""
    shutil.copytree(PACKAGE, folder / "scaleml", ignore=shutil.ignore_patterns("__pycache__"))
    change(folder / "scaleml")
    return str(folder)


def not_there(package: Path) -> None:
    shutil.rmtree(package)
    package.mkdir()
    (package / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'scaleml'\", name='scaleml')")


def older(package: Path) -> None:
    file = package / "__init__.py"
    file.write_text(file.read_text().replace(f'__version__ = "{scaleml.__version__}"', '__version__ = "0.0.9"'))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    folder = tmp_path_factory.mktemp("mixed")
    authority = Authority(folder)
    certificate, key = authority.certify("all")
    tls = {"tls-ca-file": authority.file, "tls-cert": certificate, "tls-key": key}
    secure = ["--protocol", "tls", *(word for name, file in tls.items() for word in (f"--{name}", str(file)))]
    bare, old = installed(folder / "bare", not_there), installed(folder / "old", older)
    file = folder / "scheduler.json"
    where = ("--host", "127.0.0.1", "--no-dashboard")
    with Shell(folder) as shell:
        shell.dask("scheduler", *where, "--port", "0", "--scheduler-file", str(file), *secure, PYTHONPATH=bare)
        for name, path in {**dict.fromkeys(GOOD, str(PACKAGE.parent)), "bare": bare, "older": old}.items():
            options = ("--scheduler-file", str(file), "--nthreads", "1", "--name", name, "--no-nanny")
            shell.dask("worker", *options, *where, *secure, PYTHONPATH=path)
        assert poll(file.exists)
        security = Security(
            tls_ca_file=str(authority.file),
            tls_client_cert=str(certificate),
            tls_client_key=str(key),
            require_encryption=True,
        )
        with Client(scheduler_file=str(file), security=security, set_as_default=False) as client:
            client.wait_for_workers(4, timeout=60)
            yield Mixed(client, file, tls, client.run(os.getpid), client.run(name_of))


def test_all_are_named_with_the_remedy_before_any_task_is_sent(mixed: Mixed, problem: Problem) -> None:
    kept = mixed.client.scatter(list(range(8)), broadcast=True)
    chunks = {"X": da.from_array(problem.X, chunks=(50, -1)), "y": da.from_array(problem.y, chunks=50)}
    bare, older = mixed.address("bare"), mixed.address("older")
    for data in ({}, chunks):
        with pytest.raises(StartFailed, match="install") as refused:
            scaleml.train(**problem.settings(client=mixed.client, **data))
        words = str(refused.value)
        assert f"worker {bare} cannot import scaleml (ModuleNotFoundError" in words
        assert f"install scaleml=={scaleml.__version__} there" in words
        assert (
            f"worker {older} has scaleml 0.0.9, this process {scaleml.__version__}: install the same version" in words
        )
        assert not any(mixed.address(name) in words for name in GOOD)
    assert mixed.client.run(os.getpid) == mixed.pids
    assert mixed.client.gather(kept) == list(range(8))


def test_those_that_have_it_train_though_the_scheduler_has_not(mixed: Mixed, problem: Problem) -> None:
    where = {"client": mixed.client, "workers": GOOD}
    with mixed.client.as_current():
        X, y = da.from_array(problem.X, chunks=(50, -1)), da.from_array(problem.y, chunks=50)
        problem.check(scaleml.train(**problem.settings(**where)).params, shards=2)
        compared = compare(problem, [scaleml.Serial(), scaleml.AllReduce()], **where, epochs=1)
        assert {run.state for run in compared.runs} == {"finished"}
        run = scaleml.train(**problem.settings(**where, X=X, y=y, strategy=scaleml.ParameterServer("bsp")))
        assert run.model.score(problem.X, problem.y) > 0.85
        on_good = [mixed.address(name) for name in GOOD]
        lazy = mixed.client.compute(run.model.predict(X), workers=on_good)
        np.testing.assert_array_equal(lazy.result(20), run.model.predict(problem.X))
        # A worker without scaleml fails the task in words, and lives.
        failing = mixed.client.compute(run.model.predict(X + 0), workers=[mixed.address("bare")], retries=0)
        with pytest.raises(
            ImportError, match=rf"worker {mixed.address('bare')} cannot import scaleml.*install it there"
        ):
            failing.result(20)
    assert mixed.client.run(os.getpid) == mixed.pids


def test_a_module_beside_the_script_goes_along(
    mixed: Mixed, problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "neighbour.py").write_text("def twice(x):\n    return 2 * x\n")
    (tmp_path / "beside_the_script.py").write_text(
        "import scaleml, neighbour\n"
        "class Mine(scaleml.AllReduce):\n"
        "    def step(self, w, state, ctx):\n"
        "        super().step(w, state, ctx)\n"
        "        w *= neighbour.twice(0.5)\n"
    )
    module: Any = __import__("beside_the_script")
    run = scaleml.train(**problem.settings(client=mixed.client, workers=GOOD, strategy=module.Mine()))
    problem.check(run.params, shards=2)
    assert not cloudpickle.list_registry_pickle_by_value() & {"beside_the_script", "neighbour"}


def test_one_that_cannot_go_along_is_named_with_the_remedies(
    mixed: Mixed, problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "with_a_lock.py").write_text(
        "import scaleml, threading\n"
        "LOCK = threading.Lock()\n"
        "class Mine(scaleml.AllReduce):\n"
        "    def step(self, w, state, ctx):\n"
        "        with LOCK:\n"
        "            super().step(w, state, ctx)\n"
    )
    module: Any = __import__("with_a_lock")
    with pytest.raises(scaleml.RunFailed, match=r"cannot import with_a_lock.*upload_file.*PYTHONPATH") as refused:
        scaleml.train(**problem.settings(client=mixed.client, workers=GOOD, strategy=module.Mine()))
    assert mixed.address("good-0") in str(refused.value)


def test_the_doctor_names_them_and_measures_between_the_others(mixed: Mixed) -> None:
    report = scaleml.doctor(mixed.client)
    assert not report.ok
    assert report.tls
    errors = {problem.who: problem for problem in report.problems if problem.severity == "error"}
    assert errors.keys() == {(mixed.address("bare"),), (mixed.address("older"),)}
    assert f"install scaleml=={scaleml.__version__}" in errors[mixed.address("bare"),].remedy
    assert {worker.name: worker.scaleml for worker in report.workers} == {
        **dict.fromkeys(GOOD, scaleml.__version__), "bare": "", "older": "0.0.9",
    }  # fmt: skip
    (link,) = report.links.links
    assert set(link.workers) == {mixed.address(name) for name in GOOD}
    assert link.same_host
    assert 0 < link.latency < 1 < link.bandwidth


def test_so_does_the_command_line_and_a_stopped_worker_is_named_too(mixed: Mixed) -> None:
    stopped = mixed.address("good-1")
    options = [f"--{name}={file}" for name, file in mixed.tls.items()]
    os.kill(mixed.pids[stopped], signal.SIGSTOP)
    try:
        said = CliRunner().invoke(main, ["doctor", str(mixed.client.scheduler.address), *options])
    finally:
        os.kill(mixed.pids[stopped], signal.SIGCONT)
    assert said.exit_code == 1
    assert "This cluster is not healthy: 3 errors" in said.output
    assert f"error: worker {stopped} does not answer" in said.output
    assert f"error: worker {mixed.address('bare')} cannot import scaleml" in said.output


def test_a_scheduler_that_nobody_reaches_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleml.api.doctor._SCHEDULER", 0.3)
    said = CliRunner().invoke(main, ["doctor", "tcp://127.0.0.1:1"])
    assert said.exit_code == 1
    assert "no Dask scheduler could be reached at tcp://127.0.0.1:1" in said.output
    assert "Traceback" not in said.output
