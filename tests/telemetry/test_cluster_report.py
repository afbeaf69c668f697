"""The report of a cluster as people see it: what others chose to call themselves is shown, never obeyed."""

from __future__ import annotations

import math

import numpy as np

from scaleml.telemetry.cluster_report import ClusterReport, WorkerReport
from scaleml.telemetry.links import Link, Links
from scaleml.telemetry.problem import Problem, merged

NASTY = "<script>x</script>\x1b[2J&"


def report(*problems: Problem, count: int = 3) -> ClusterReport:
    workers = [WorkerReport(f"tcp://a:{n}", str(n), host="h", threads=1) for n in range(count)]
    addresses = tuple(worker.address for worker in workers)
    pairs = [(addresses[i], addresses[j]) for i in range(count) for j in range(i + 1, count)]
    links = [Link(pair, "a:1", (n + 1) * 1e-5, (n + 1) * 1e9, same_host=True) for n, pair in enumerate(pairs)]
    links[-1] = Link(pairs[-1], "a:1", error="refused")
    return ClusterReport(
        "tcp://a:0", workers=tuple(workers), links=Links(addresses, tuple(links)), problems=problems, seconds=1.0
    )


def test_only_errors_make_it_unhealthy() -> None:
    warning, error = Problem("warning", (), "w", "r"), Problem("error", ("tcp://a:1",), "has none", "install it")
    assert report().ok
    assert report(warning).ok
    assert not report(warning, error).ok
    assert report(warning, error).headline.startswith(
        "This cluster is not healthy: 1 error and 1 warning; 3 workers on 1 host"
    )


def test_links_are_a_matrix_with_the_medians_of_each_kind() -> None:
    links = report().links
    np.testing.assert_array_equal(links.latency, links.latency.T)
    np.testing.assert_allclose(links.latency[0], [math.nan, 1e-5, 2e-5])
    np.testing.assert_allclose(links.bandwidth[2], [2e9, math.nan, math.nan])
    np.testing.assert_allclose(links.typical(same_host=True), (1.5e-5, 1.5e9))
    assert all(map(math.isnan, links.typical(same_host=False)))
    assert links.table()["error"].tolist() == ["", "", "refused"]
    assert "none" in repr(report())
    assert "the slowest of each worker" in repr(report(count=17))


def test_names_and_errors_of_others_are_escaped_where_they_are_shown() -> None:
    bad = ClusterReport(
        NASTY,
        workers=(WorkerReport("tcp://a:1", NASTY, host="h", blas=NASTY),),
        problems=(Problem("error", ("tcp://a:1",), f"has {NASTY}", NASTY),),
    )
    shown = bad._repr_mimebundle_()
    assert "<script" not in shown["text/html"]
    assert shown["text/html"].count("&lt;script&gt;") >= 4
    for text in (repr(bad), shown["text/plain"]):
        assert "\x1b" not in text
        assert "\\x1b[2J" in text


def test_the_same_problem_of_several_is_one_worst_first() -> None:
    note, error = Problem("note", ("c",), "has x", "r"), [Problem("error", (who,), "has no y", "r") for who in "ba"]
    assert [str(problem) for problem in merged([note, *error])] == ["workers b and a have no y: r", "worker c has x: r"]


def test_its_tables_have_a_row_each() -> None:
    found = report(Problem("note", ("tcp://a:1",), "has x", "r"))
    assert found.table()[["address", "threads"]].to_numpy().tolist() == [[f"tcp://a:{n}", 1] for n in range(3)]
    assert found.problems_table().to_numpy().tolist() == [["note", "tcp://a:1", "has x", "r"]]
