"""The benchmarks are honest: both sides do the same, and what is missing is said."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import allreduce, bare, compression, report
from benchmarks.pairs import pair
from benchmarks.problems import PROBLEMS
from scaleml.models import Signature
from scaleml.optim import SGD


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_bare_loop_does_the_same_mathematics_bit_for_bit(kind: str) -> None:
    problem = replace(PROBLEMS[kind], features=20, hidden=16 if kind == "mlp" else 0, rows=512, batch=64, epochs=3)
    order = np.random.default_rng(1).permutation(problem.rows)
    x, y = (part[order] for part in problem.data())
    task = "multiclass" if problem.classes else "binary"
    network = problem.model().build(Signature(problem.features, problem.classes or 1, task))
    y = y if problem.classes else y.astype(np.float32)
    w, g, optimizer = network.init(0), np.empty(network.size, np.float32), SGD(problem.rate)
    state = optimizer.init(network.size, w.dtype)
    for t in range(problem.epochs * problem.rows // problem.batch):
        rows = slice(t * problem.batch % problem.rows, t * problem.batch % problem.rows + problem.batch)
        _, weight = network.loss_grad(w, x[rows], y[rows], None, g)
        g *= 1.0 / weight
        network.objective_grad(w, g)
        optimizer.apply(w, g, state, t + 1)
    assert bare.train(problem, order, None)["digest"] == bare.digest(w)


def test_two_bare_processes_pass_their_barrier(tmp_path: Path) -> None:
    order = tmp_path / "order.npy"
    np.save(order, np.arange(2 * PROBLEMS["mlp"].batch))
    with pair("benchmarks.bare", "mlp") as both:
        port, _ = both.ask({"do": "listen"})
        both.ask({"do": "join", "port": port})
        answers = both.ask({"do": "train", "order": str(order)})
    assert answers[0]["digest"] == answers[1]["digest"]


def test_a_process_that_dies_is_an_error_and_no_hang() -> None:
    with pytest.raises(RuntimeError, match="ended with"), pair("benchmarks.bare", "no such problem"):
        pass


def test_missing_peers_are_rows_that_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allreduce, "find_spec", lambda name: None)
    assert set(allreduce._pairs()) == {"shared memory", "TCP, sums on"}
    times = {(mine, size): [1e-3] for mine in ("shared memory", "TCP, sums on") for size in allreduce.SIZES}
    rows = list(allreduce._rows(times))
    assert len(rows) == 9
    assert all(row.ratio is None and row.met is None and "pip install" in row.note for row in rows)


def test_two_ranks_sum_and_code_with_every_codec() -> None:
    with pair(compression.PEERS, "tcp") as both:
        both.ask({"do": "connect", "book": both.ask({"do": "listen"})})
        question = {"items": 10_000, "calls": 2}
        dense = both.ask({"do": "sum", "codec": None, **question})
        for codec in compression.CODECS:
            for (times, sent), (_, whole) in zip(
                both.ask({"do": "sum", "codec": codec, **question}), dense, strict=True
            ):
                assert len(times) == 2
                assert sent < 0.55 * whole
            assert all(seconds > 0 for seconds in both.ask({"do": "code", "codec": codec, **question}))


def test_a_codec_pays_where_the_bytes_saved_take_longer() -> None:
    together = {compression.DENSE: [1e-3], "Int8()": [3e-3], "FP16()": [0.5e-3]}
    sent = {compression.DENSE: 4e6, "Int8()": 1e6, "FP16()": 2e6}
    rows = list(compression._rows({"Int8()": [1e-2], "FP16()": [1e-3]}, together, sent))
    assert [row.met for row in rows] == [True, True, None, None]
    assert rows[2].note == "25.0% of its bytes; pays below 12,000 Mbit/s"
    assert rows[3].note == "50.0% of its bytes; pays even here"
    assert rows[3].ratio == 2


@pytest.mark.parametrize(
    ("ratio", "target", "sense", "met"),
    [
        (2.0, 2, "at least", True),
        (1.9, 2, "at least", False),
        (1.02, 1.03, "at most", True),
        (1.04, 1.03, "at most", False),
        (1.0, None, "at most", None),
        (None, 2, "at least", None),
    ],
)
def test_a_target_is_met_in_its_own_sense(ratio, target, sense, met) -> None:
    assert report.Row("x", "y", 1.0, 1.0, "us", ratio, target, sense).met is met


def test_a_comparison_is_of_paired_rounds_in_the_direction_asked_for() -> None:
    mine, theirs = [1.0, 2.0, 90.0], [4.0, 8.0, 180.0]
    row = report.compare("x", "y", mine, theirs, "us", 3, inverse=True)
    assert (row.ours, row.theirs, row.met) == (2.0, 8.0, True)
    assert row.ratio == pytest.approx((4 * 4 * 2) ** (1 / 3))
    low, high = stats.ttest_1samp(np.log([4.0, 4.0, 2.0]), 0).confidence_interval()
    assert row.spread == pytest.approx((np.exp(low), np.exp(high)))
    row = report.compare("x", "y", mine, theirs, "us", 1, sense="at most")
    assert row.ratio == pytest.approx(32 ** (-1 / 3))
    assert row.met
    assert report.compare("x", "y", [1.0], [2.0], "us").spread is None


def test_rows_are_saved_with_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    report.show([report.Row("x", "y", 1.0, 2.0, "us", 2.0, 1.5)], path)
    content = json.loads(path.read_text())
    assert content["rows"][0]["met"] is True
    assert content["machine"]["cores"] >= 1
