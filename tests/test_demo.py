"""What ``python -m scaleml demo`` refuses, before anything is trained."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from scaleml.__main__ import main

REFUSED = {
    "no workers": (["--workers", "0"], "--workers"),
    "far too many workers": (["--data", "wine", "--strategies", "AllReduce()", "--workers", "5000"], "workers=5000"),
    "no epochs": (["--epochs", "0"], "--epochs"),
    "an empty batch": (["--batch-size", "0"], "--batch-size"),
    "no learning rate": (["--learning-rate", "0"], "--learning-rate"),
    "layers of words": (["--hidden", "a,b"], "'a,b': write positive integers"),
    "an empty layer": (["--hidden", "10,0"], "'10,0': write positive integers"),
    "an open bracket": (["--strategies", "AllReduce("], "check its brackets"),
    "no strategy": (["--strategies", "AllReduced()"], "'AllReduced' is none of"),
    "a slip in a strategy": (["--strategies", "ParameterServer('asink')"], "Did you mean 'async'"),
    "an unknown data set": (["--data", "irises"], "irises"),
    "nowhere to write": (["--output", "/no/such/folder/x.html"], "'/no/such/folder' is no folder to write to"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_told_in_a_line(case, monkeypatch):
    monkeypatch.delenv("SCALEML_DATA", raising=False)
    arguments, words = REFUSED[case]
    told = CliRunner().invoke(main, ["demo", *arguments])
    assert told.exit_code in (1, 2)
    assert isinstance(told.exception, SystemExit), "a traceback"
    assert words in told.output


def test_an_empty_file_is_named(tmp_path):
    empty = tmp_path / "empty.csv"
    empty.touch()
    told = CliRunner().invoke(main, ["demo", "--data", str(empty)])
    assert f"{empty} is empty" in told.output
