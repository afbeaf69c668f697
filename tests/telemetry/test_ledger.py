"""The ledger: parts sum to the wall time, the waits find who was slow."""

import numpy as np
import pytest

from scaleml.telemetry import History, Ledger
from telemetry_fakes import made, row


def ledger(*rows):
    history = History()
    history.append_rows(rows)
    return Ledger(history)


def test_sums_by_rank():
    found = ledger(
        row(0, compute=1, wait=2, comm=0.5, apply=0.25, other=0.25, waited_for=2, updates=3, staleness=1, bytes_sent=10),
        row(2, compute=4, bytes_sent=1, samples=7),
        row(0, compute=1, wait=1, waited_for=2, updates=1, staleness=5, samples=9),
        row(0, wait=0.5, waited_for=-1, updates=0, samples=10),
    )  # fmt: skip
    assert found.ranks.tolist() == [0, 2]
    assert found.compute.tolist() == [2, 4]
    assert found.wait.tolist() == [3.5, 0]
    assert found.wall.tolist() == [6.5, 4]
    assert found.bytes_sent.tolist() == [10, 1]
    assert found.updates.tolist() == [4, 1]
    assert found.samples.tolist() == [10, 7]
    assert found.staleness.tolist() == [2, 0]
    assert found.waits.tolist() == [[0, 3], [0, 0]]
    assert found.blame() == ["rank 0 waited for rank 2 for 3 s (46% of its time)"]
    frame = found.to_frame()
    assert frame.loc[2, "compute"] == 4
    assert frame[["compute", "wait", "comm", "apply", "other"]].sum(axis=1).tolist() == frame["wall"].tolist()


def test_shares_sum_to_one_and_leave_servers_out():
    found = ledger(
        row(0, compute=3, wait=1, samples=9),
        row(1, compute=1, comm=1, samples=9),
        row(2, wait=50, apply=50, comm=50),
    )
    shares = found.shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["compute"] == pytest.approx(4 / 6)
    assert found.workers.tolist() == [True, True, False]
    assert found.name(2) == "rank 2 (a server)"


def test_nothing_yet():
    found = Ledger(History())
    assert np.isnan(found.shares()["compute"])
    assert (found.slow, found.slow_sentence(), found.blame()) == (None, None, [])
    assert str(found) == "Nothing was recorded yet."
    assert found._repr_mimebundle_()["text/plain"] == "Nothing was recorded yet."


def test_the_straggler_is_named_with_what_it_cost():
    run = made("AllReduce()", 4, straggler=2, seconds=10)
    found = Ledger(run.history)
    assert found.slow == 2
    assert (
        found.slow_sentence()
        == "rank 2 held up the others: they waited 10.5 s for it, its own steps took 1.6x their computing time"
    )
    assert found.blame()[0] == "rank 0 waited for rank 2 for 3.5 s (35% of its time)"
    assert len(found.blame()) == 3


def test_of_two_ranks():
    found = ledger(row(0, compute=1, wait=1, waited_for=1, samples=1), row(1, compute=2, samples=1))
    said = "rank 1 held up the other rank: it waited 1 s for it, its own steps took 2.0x the other's computing time"
    assert found.slow_sentence() == said


def test_a_link_that_is_slow_though_its_rank_computes_as_fast():
    found = ledger(row(0, compute=1, wait=1, waited_for=1, samples=1), row(1, compute=1, comm=1, samples=1))
    assert found.slow_sentence() == "rank 1 held up the other rank: it waited 1 s for it"


def test_mutual_waits_blame_nobody():
    found = ledger(
        row(0, compute=8, wait=2, waited_for=1, samples=1),
        row(1, compute=8, wait=2, waited_for=0, samples=1),
    )
    assert found.slow is None
    assert len(found.blame()) == 2


def test_a_busy_server_is_named():
    found = ledger(
        row(0, compute=5, wait=5, waited_for=2, samples=1),
        row(1, compute=5, wait=5, waited_for=2, samples=1),
        row(2, apply=9, wait=1, waited_for=0),
    )
    assert found.slow_sentence() == "rank 2 (a server) held up the workers: they waited 10 s for it"


def test_a_server_that_waits_for_work_is_held_up_by_nobody():
    found = ledger(
        row(0, compute=9.5, wait=0.5, waited_for=2, samples=1),
        row(1, compute=10, samples=1),
        row(2, apply=1, wait=9, waited_for=0),
    )
    assert found.slow is None


def test_short_waits_are_left_out():
    found = ledger(row(0, compute=100, wait=0.5, waited_for=1, samples=1), row(1, compute=100.5, samples=1))
    assert found.blame() == []
    assert len(found.blame(at_least=0)) == 1
    assert found.slow is None


def test_it_shows_in_notebook_and_terminal():
    found = Ledger(made("AllReduce()", 3, straggler=1).history)
    bundle = found._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png"}
    assert "Rank 1 held up the others" in bundle["text/plain"]
    assert "<table" in bundle["text/html"]
