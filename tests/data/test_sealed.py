"""Sealed calls: what carries them needs nothing of ours, and they give what the call itself gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

import scaleml
from scaleml.data.partition import PassOptions
from scaleml.data.sealed import parcel, seal, sealed

CARRIER = """
import pickle, sys
call, parcel = pickle.load(sys.stdin.buffer)
assert pickle.loads(pickle.dumps(parcel._payload))
try:
    call(1)
except ImportError as error:
    print(error.name, "|", error)
print([name for name in sys.modules if name.startswith("scaleml.")])
"""


class Apart:
    """What Dask would bring."""


def shape(x: object, *more: object) -> tuple[object, ...]:
    return (x, *more)


def test_a_process_without_the_package_can_carry_them_and_says_what_calling_needs(tmp_path: Path) -> None:
    (tmp_path / "scaleml.py").write_text("raise ModuleNotFoundError(\"No module named 'scaleml'\", name='scaleml')")
    options = PassOptions("t", "f4", True, 0, 0.0, "X")
    content = cloudpickle.dumps((sealed(shape, options), parcel(options)))
    done = subprocess.run(
        [sys.executable, "-c", CARRIER],
        input=content,
        capture_output=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    said, modules = done.stdout.decode().splitlines()
    assert said.startswith("scaleml | this process cannot import scaleml")
    assert "upload_file" in said
    assert modules == "[]"


@pytest.mark.parametrize("lead", [(), (7,), (7, 8)])
def test_what_dask_brings_takes_its_places_and_the_rest_comes_first(lead: tuple[int, ...]) -> None:
    one, two = Apart(), Apart()
    call = seal(shape, [one, {"k": two}], one, 5, apart=Apart)
    assert call.apart == (one, two, one)
    assert call.call("a", "b", "c", *lead) == (*lead, ["a", {"k": "b"}], "c", 5)


def test_they_are_of_what_was_when_they_were_made() -> None:
    values = np.arange(3)
    call, kept = sealed(shape, values), parcel(values)
    values[:] = 9
    assert call()[0].tolist() == [0, 1, 2] == kept.open().tolist()
    assert cloudpickle.loads(cloudpickle.dumps(kept)).open().tolist() == [0, 1, 2]


def test_modules_are_those_that_whoever_opens_it_may_lack() -> None:
    import click

    assert seal(shape, scaleml.SGD(0.1), np.ones(2), Path("x"), len).modules == {__name__}
    assert {name.partition(".")[0] for name in seal(len, click.Option).modules} == {"click"}
