"""The history: what goes in comes out by column, live, thinned, pickled; and curves over it."""

import pickle
import threading

import numpy as np
import pytest

from scaleml.telemetry import COLUMNS, History, Ledger
from scaleml.telemetry.curves import loss_curve, throughput_curve, total_samples, training_curve
from telemetry_fakes import made, row


def rows_of(n, ranks=3, seed=0):
    random = np.random.default_rng(seed)
    rows = np.array([row(i % ranks) for i in range(n)], dtype=float)
    parts = [
        COLUMNS.index(name) for name in ("compute", "wait", "comm", "apply", "other", "bytes_sent", "bytes_received")
    ]
    rows[:, parts] = random.integers(0, 64, (n, len(parts))) / 64
    rows[:, COLUMNS.index("updates")] = random.integers(1, 9, n)
    rows[:, COLUMNS.index("loss")] = random.random(n)
    rows[:, COLUMNS.index("staleness")] = random.integers(0, 4, n)
    rows[:, COLUMNS.index("waited_for")] = (rows[:, 0] + 1) % ranks
    rows[:, COLUMNS.index("time")] = np.arange(n) / 10
    rows[:, COLUMNS.index("step")] = rows[:, COLUMNS.index("samples")] = np.arange(n) // ranks
    return rows


def test_columns_by_arrival():
    history, rows = History(), rows_of(10)
    history.append_bytes(rows[:4].tobytes())
    history.append_rows(rows[4:])
    assert len(history) == history.appended == 10
    for i, name in enumerate(COLUMNS):
        np.testing.assert_array_equal(history[name], rows[:, i])
    np.testing.assert_array_equal(history.rows, rows)
    frame = history.to_frame()
    assert tuple(frame.columns) == COLUMNS
    assert frame["rank"].dtype == np.int64


def test_what_is_given_out_is_a_copy():
    history = History()
    history.append_rows(rows_of(3))
    history["loss"][:] = -1
    history.rows[:] = -1
    assert (history["loss"] >= 0).all()


@pytest.mark.parametrize("size", [1, 127, 129])
def test_bytes_of_no_whole_rows_are_refused(size):
    with pytest.raises(ValueError, match="install the same one"):
        History().append_bytes(bytes(size))


def test_wrong_shapes_and_names_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 5\)"):
        History().append_rows(np.zeros((3, 5)))
    with pytest.raises(KeyError, match="there are: rank"):
        History()["los"]
    with pytest.raises(ValueError, match="max_rows=3: must be at least 16"):
        History(max_rows=3)


def test_evaluations_and_marks():
    history = History()
    assert len(history.evaluations["loss"]) == 0
    history.add_evaluation(0, 0, 0, 0.7, 0.5)
    history.add_evaluation(time=2, samples=100, step=7, loss=0.3, score=0.9)
    assert {name: values.tolist() for name, values in history.evaluations.items()} == {
        "time": [0, 2], "samples": [0, 100], "step": [0, 7], "loss": [0.7, 0.3], "score": [0.5, 0.9],
    }  # fmt: skip
    history.mark(1.5, "learning rate 0.1")
    assert history.marks == [(1.5, "learning rate 0.1")]


def test_since_gives_each_row_once():
    history, rows, cursor, seen = History(), rows_of(20), 0, []
    for part in (rows[:3], rows[3:3], rows[3:15], rows[15:]):
        history.append_rows(part)
        new, cursor = history.since(cursor)
        seen.append(new)
    np.testing.assert_array_equal(np.concatenate(seen), rows)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_full_history_halves_the_past_and_keeps_the_sums(chunk):
    history, rows, cursor, seen = History(max_rows=64), rows_of(1000), 0, 0
    for start in range(0, len(rows), chunk):
        history.append_rows(rows[start : start + chunk])
        new, cursor = history.since(cursor)
        seen += len(new)
    assert len(history) <= 64
    assert history.appended == 1000
    if chunk < 16:
        assert seen == 1000  # a reader that keeps up loses nothing
    kept, all_of = Ledger(history), Ledger(rows)
    for name in (
        "compute",
        "wait",
        "comm",
        "apply",
        "other",
        "wall",
        "bytes_sent",
        "bytes_received",
        "updates",
        "samples",
    ):
        np.testing.assert_allclose(getattr(kept, name), getattr(all_of, name), err_msg=name)
    np.testing.assert_allclose(kept.staleness, all_of.staleness)
    np.testing.assert_allclose(kept.waits, all_of.waits)
    for rank in range(3):
        mine, full = history.rows[history["rank"] == rank], rows[rows[:, 0] == rank]
        loss, updates = COLUMNS.index("loss"), COLUMNS.index("updates")
        assert np.average(mine[:, loss], weights=mine[:, updates]) == pytest.approx(
            np.average(full[:, loss], weights=full[:, updates])
        )
        assert (np.diff(mine[:, COLUMNS.index("time")]) > 0).all()
    np.testing.assert_array_equal(history.rows[-10:], rows[-10:])


def test_merging_skips_rows_without_a_loss():
    history = History(max_rows=16)
    for i in range(40):
        history.append_rows([row(0, loss=np.nan if i % 2 else 3.0, time=i)])
    assert set(history["loss"][np.isfinite(history["loss"])]) == {3.0}


def test_many_threads_append_and_read():
    history, failures = History(), []

    def write(rank):
        for _ in range(200):
            history.append_rows([row(rank)])

    def read():
        failures.extend(1 for _ in range(200) if len(history["loss"]) > history.appended)

    threads = [threading.Thread(target=write, args=(rank,)) for rank in range(4)] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    np.testing.assert_array_equal(np.bincount(history["rank"].astype(int)), [200] * 4)


def test_a_pickled_history_goes_on():
    history = made("AllReduce()", 2, steps=5).history
    again = pickle.loads(pickle.dumps(history))
    np.testing.assert_array_equal(again.rows, history.rows)
    np.testing.assert_array_equal(again.evaluations["loss"], history.evaluations["loss"])
    again.append_rows([row()])
    assert len(again) == len(history) + 1


def test_samples_of_all_ranks():
    history = History()
    history.append_rows([row(0, samples=10, time=1), row(1, samples=30, time=1), row(0, samples=25, time=2)])
    assert total_samples(history) == 55
    time, rate = throughput_curve(history)
    assert np.trapezoid(rate, time) == pytest.approx(55, rel=0.01)


def test_throughput_spreads_long_rows():
    history = History()
    history.append_rows([row(0, samples=10.0 * i, time=1.0 * i) for i in range(1, 41)])
    history.append_rows([row(0, samples=500, time=50)])  # one step of 10 s at the same rate
    _, rate = throughput_curve(history)
    np.testing.assert_allclose(rate, 10, rtol=1e-9)


def test_training_curve_follows_the_loss_and_ignores_ranks_without_one():
    run = made("AllReduce()", 4, steps=500, seconds=5)
    run.history.append_rows([row(9, time=t / 10, loss=np.nan, updates=100) for t in range(50)])  # a server
    curve = training_curve(run.history)
    assert len(curve.loss) <= 200
    assert np.isfinite(curve.loss).all()
    expected = 0.2 + 0.5 * np.exp(-curve.samples / 1000)
    np.testing.assert_allclose(curve.loss, expected, rtol=0.1)
    assert curve.samples[-1] == pytest.approx(5000)


def test_training_curve_where_the_loss_is_known_elsewhere():
    history = History()
    for i in range(1, 6):  # a pipeline: the first stage reads rows, the last one knows the loss
        history.append_rows([row(0, samples=10 * i, time=i, step=i), row(1, loss=1 / i, time=i, step=i)])
    curve = training_curve(history)
    np.testing.assert_allclose(curve.loss, [1 / i for i in range(1, 6)])
    np.testing.assert_allclose(curve.samples, [10, 20, 30, 40, 50])


def test_a_diverged_loss_shows():
    history = History()
    history.append_rows([row(0, samples=i, time=i, loss=1.0 if i < 3 else np.nan) for i in range(1, 6)])
    assert np.isnan(training_curve(history).loss[-1])


def test_held_out_loss_goes_before_training_loss():
    run = made("AllReduce()", 2)
    assert loss_curve(run.history).kind == "held-out"
    assert loss_curve(made("AllReduce()", 2, held_out=False).history).kind == "training"
    assert len(loss_curve(History()).loss) == 0


def crossing(loss, target, time=None):
    history = History()
    for t, value in zip(time or range(len(loss)), loss, strict=True):
        history.add_evaluation(t, 100 * t, 10 * t, value, 0)
    return loss_curve(history).crossing(target)


@pytest.mark.parametrize(
    ("loss", "target", "expected"),
    [
        ((1.0, 0.5, 0.25, 0.25), 0.75, (0.5, 50, 5)),
        ((1.0, 0.5, 0.25, 0.25), 0.5, (1, 100, 10)),
        ((1.0, 0.5, 0.25, 0.25, 0.25), 0.375, (1.5, 150, 15)),
        ((1.0, 0.5, 0.25, 0.25), 0.2, None),
        ((1.0, 0.5, 0.25), 1.5, (0, 0, 0)),
        ((1.0, 0.25, 0.5, 0.25, 0.5), 0.375, (5 / 6, 500 / 6, 50 / 6)),  # it stays below on average
        ((1.0, 0.25, 1.0, 0.5, 0.25, 0.25, 0.25), 0.375, (3.5, 350, 35)),  # a lucky dip is not there yet
        ((1.0, 0.5, 0.25, 0.5), 0.375, None),  # nobody knows whether it would have stayed
        ((1.0, 0.25), 0.625, (0.5, 50, 5)),  # of few evaluations all but the one before training have to hold
        ((1.0, np.nan, 0.25, 0.25, 0.25), 0.375, (2, 200, 20)),  # nothing is known in between
        ((np.nan, np.nan, np.nan), 0.3, None),
        ((np.inf, 0.5, 0.25, 0.25), 0.5, (1, 100, 10)),
    ],
)
def test_time_to_target_is_interpolated(loss, target, expected):
    found = crossing(loss, target)
    assert found == (None if expected is None else pytest.approx(expected))


def test_rewind_forgets_what_came_after_a_step():
    history = History()
    for step in range(1, 7):
        row = dict.fromkeys(COLUMNS, 0.0) | {"rank": step % 2, "step": step, "time": float(step), "epoch": step / 2}
        history.append_rows([list(row.values())])
        history.add_evaluation(step, 0, step, 1.0 / step, 0.5)
    for number in (1, 2, 3):
        history.add_epoch(number, 1.0 / number, 0.5, 0)
    history.rewind(4)
    assert history["step"].tolist() == [1, 2, 3, 4]
    assert history.evaluations["step"].tolist() == [1, 2, 3, 4]
    assert history.epochs["number"].tolist() == [1, 2]
    assert history.clock(2) == 6.0, "time goes on"
    history.rewind(-1)
    assert len(history) == len(history.evaluations["step"]) == len(history.epochs["number"]) == 0


def test_evaluations_out_of_order_are_sorted():
    assert crossing((0.25, 1.0, 0.5, 0.25), 0.75, time=(3.0, 0.0, 1.0, 4.0)) == pytest.approx((0.5, 50, 5))
