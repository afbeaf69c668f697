"""Comparisons in files: the same numbers, verdict and models, nothing of a cluster, and no torn file read."""

import os
import pickle
import re

import numpy as np
import pytest

from scaleml.telemetry import Comparison, saved_file
from scaleml.telemetry.environment import Environment
from scaleml.telemetry.recorded_run import RecordedRun
from telemetry_fakes import in_rounds


@pytest.fixture
def comparison():
    runs = in_rounds([("Serial()", 1, {}), ("AllReduce()", 2, {"rate": 1900})])
    return Comparison(runs, target=0.3, environment=Environment.now("LinearModel() on 10 rows"))


def test_what_is_loaded_is_what_was_saved(comparison, tmp_path):
    found = Comparison.load(comparison.save(tmp_path / "one.scaleml"))
    assert str(found) == str(comparison)
    assert found.table().equals(comparison.table())
    assert found.environment == comparison.environment
    assert "LinearModel() on 10 rows" in found.to_html(tmp_path / "page.html").read_text()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["one.scaleml", "page.html"]


def test_where_it_was_measured(comparison):
    said = str(comparison.environment)
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", said)
    assert f"NumPy {np.__version__}" in said
    assert re.search(r"\d+ cores", said)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:60] + b"x" + data[61:]])
def test_a_torn_or_altered_file_is_refused(comparison, tmp_path, damage):
    path = comparison.save(tmp_path / "one.scaleml")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="torn or altered"):
        Comparison.load(path)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "some.pickle"
    path.write_bytes(pickle.dumps("anything"))
    with pytest.raises(ValueError, match="is no saved comparison"):
        Comparison.load(path)


def test_a_failed_write_leaves_the_former_file(comparison, tmp_path):
    path = comparison.save(tmp_path / "one.scaleml")
    before = path.read_bytes()
    broken = Comparison(comparison.runs)
    broken.notes = (lambda: None,)  # cannot be pickled
    with pytest.raises((pickle.PicklingError, AttributeError)):
        broken.save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["one.scaleml"]


def test_a_record_shows_what_the_run_showed(comparison):
    run = comparison.runs[0]
    run.params, run.model, run.last_model = np.ones(3), "what predicts better", "what predicts"
    record = pickle.loads(pickle.dumps(RecordedRun.of(run)))
    assert (record.label, record.state, record.model, record.place) == (
        run.label,
        run.state,
        "what predicts better",
        run.place,
    )
    assert (record.last_model, record.estimator, record.last_estimator) == ("what predicts", None, None)
    np.testing.assert_array_equal(record.params, run.params)
    assert "samples" in record.summary()
    assert {"text/plain", "text/html"} <= record._repr_mimebundle_().keys()


def test_no_draft_follows_a_link_that_was_put_there_before(tmp_path, monkeypatch):
    (precious := tmp_path / "precious").write_text("as it was")
    for name in ("one.scaleml", "page.html"):
        (tmp_path / f".{name}.{os.getpid()}").symlink_to(precious)  # what can be guessed
        (tmp_path / name).symlink_to(precious)  # the file itself: replaced, not followed
    nothing = Comparison([])  # without figures, which take their time
    nothing.save(tmp_path / "one.scaleml")
    nothing.to_html(tmp_path / "page.html")
    assert not (tmp_path / "one.scaleml").is_symlink()
    assert not (tmp_path / "page.html").is_symlink()
    # And if the name had been guessed.
    monkeypatch.setattr(saved_file.secrets, "token_hex", lambda _: "guessed")
    (tmp_path / ".guessed.draft").symlink_to(precious)
    for write in (lambda: nothing.save(tmp_path / "two.scaleml"), lambda: nothing.to_html(tmp_path / "two.html")):
        with pytest.raises(FileExistsError):
            write()
    assert precious.read_text() == "as it was"
    assert (tmp_path / ".guessed.draft").is_symlink()
