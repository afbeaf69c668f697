"""Progress of ``train``: shown where it is wanted, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

import scaleml
from embedded import embedded

X = np.random.default_rng(0).standard_normal((200, 5), dtype=np.float32)
Y = (X[:, 0] > 0).astype(int)


def train(**settings):
    embedded(2)
    return scaleml.train(scaleml.LinearModel(), X, Y, epochs=2, workers=2, validation=0.2, **settings)


def test_a_pipe_stays_empty(capsys):
    assert train().state == "finished"
    assert capsys.readouterr() == ("", "")


def test_a_pipe_that_wants_it_has_the_run_and_its_end(capsys):
    train(progress=True)
    said = capsys.readouterr().err
    assert "AllReduce() on 2 workers: 100%, finished" in said
    assert "held-out loss" in said
    assert "train: ended after" in said


def test_what_is_neither_is_refused_before_anything_starts():
    with pytest.raises(TypeError, match="progress='bar': must be True, False, or None"):
        scaleml.train(None, None, None, progress="bar")


def test_its_name_is_among_those_of_the_settings():
    with pytest.raises(TypeError, match=r"has no setting 'progres'.*progress"):
        scaleml.train(None, None, None, progres=True)
