"""Headlines of verdicts: every situation has its own, says how sure it is, and claims no more than the rounds show."""

import numpy as np
import pytest

from scaleml.telemetry.verdict import judge
from verdict_cases import LUCK, contender, serial, series, summary, verdict


def test_scale():
    said = verdict(serial(8.0), contender(time=4.0, samples_per_s=2000.0))
    assert said.headline.startswith(
        "Scale with AllReduce() on 2 workers: it is 2 times as fast as Serial() to a held-out loss of 0.2 (95% interval 1.9"
    )
    assert said.headline.endswith("6 rounds; medians 4 s against 8 s).")
    assert said.best == 1
    assert (
        "AllReduce() on 2 workers processes 2.00x the samples a second of Serial() "
        "and needs as many samples to the target." in said.reasons
    )
    assert "Its efficiency is 100%: 2 workers do the work of 2." in said.reasons
    assert said == " ".join([said.headline, *said.reasons])


def test_do_not_scale():
    said = verdict(serial(8.0), contender(time=10.0), contender("Gossip()", 12.0, seed=3))
    assert said.headline.startswith(
        "Do not scale: Serial() is 1.25 times as fast as the best that scales, AllReduce() on 2 workers, to a held-out loss of 0.2"
    )
    assert said.best == 0


@pytest.mark.parametrize("time", [7.7, 8.0, 8.3])
def test_a_difference_that_is_not_worth_a_word_is_none(time):
    said = verdict(serial(8.0), contender(time=time))
    assert said.headline.startswith("No difference shown between AllReduce() on 2 workers and Serial()")
    assert said.best == 0
    assert "hardly show a difference that matters" in said


def test_noise_claims_nothing_and_says_what_would_settle_it():
    luck = (0.7, 1.5, 1.0, 0.8, 1.3, 1.0)
    said = verdict(serial(8.0, luck=luck), contender(time=6.0, luck=luck))
    assert said.headline.startswith("No difference shown")
    (more,) = [reason for reason in said.reasons if "more round" in reason]
    assert more.endswith("would probably settle it (repeats=25).")
    assert "about" in more


def test_one_round_claims_nothing():
    said = verdict(serial(8.0, luck=[1.0]), contender(time=2.0, luck=[1.0], placing=0.5))
    assert said.headline == (
        "One round was run, and one round claims nothing: AllReduce() on 2 workers took 2 s to a held-out loss of 0.2, Serial() 8 s."
    )
    assert "Five rounds can claim something: 4 more would take about 2 min 42 s (repeats=5)." in said.reasons
    assert said.best == 1


def test_unequal_rounds_after_a_stop_count_as_far_as_they_pair():
    short = contender(time=4.0, luck=LUCK[:4])
    said = verdict(serial(8.0), short)
    assert "4 rounds;" in said.headline


def test_settings_changed_in_mid_run_neither_claim_nor_serve():
    changed = [summary(time_to_target=1.0, changed=("learning_rate=0.5",)) for _ in LUCK]
    said = verdict(serial(8.0), series(changed))
    assert not said.headline.startswith("Scale")
    assert (
        "AllReduce() on 2 workers in round 1, 2, 3, 4, 5, 6: changed: learning_rate=0.5; it counts for nothing here."
        in said.reasons
    )
    base = series([summary("Serial()", 9.0, changed=("learning_rate=0.01",)) for _ in LUCK])
    assert "add Serial()" in verdict(base, contender(time=4.0)).headline


def test_one_changed_round_is_left_out_of_the_others():
    rows = [summary(time_to_target=4.0 * luck) for luck in LUCK]
    rows[2] = summary(time_to_target=0.1, changed=("strategy=Gossip()",))
    said = verdict(serial(8.0), series(rows))
    assert "5 rounds;" in said.headline
    assert "in round 3: changed: strategy=Gossip()" in said


def test_a_winner_that_ended_far_above_the_target_wins_nothing():
    said = verdict(serial(8.0), contender(time=2.0, loss=0.89, end=0.89, target=0.42), target=0.42)
    assert not said.headline.startswith("Scale")
    assert "its loss ended far above it, at 0.89" in said


def test_an_efficiency_above_all_workers_claims_nothing():
    said = verdict(serial(8.0), contender(time=2.0))
    assert said.headline.startswith("Nothing is claimed: AllReduce() on 2 workers is ahead")
    assert "more than these can give" in said.headline


def test_another_rate_than_the_baselines_claims_nothing():
    said = verdict(serial(8.0), contender(time=5.0, optimizer="SGD(0.2)"))
    assert said.headline.startswith("Nothing is claimed")
    assert "it used SGD(0.2) on 256 rows an update, and no serial run did (Serial(): SGD(0.1) on 256)" in said.headline


def test_what_a_smaller_batch_gains_is_told_from_what_parallelism_gains():
    small = {"rows_an_update": 128, "optimizer": "SGD(0.05)", "learning_rate": 0.05}
    said = verdict(
        serial(8.0, learning_rate=0.1), serial(5.0, seed=2, **small), contender("Gossip()", 3.0, seed=3, **small)
    )
    assert "1.67 times as fast as Serial()" in said.headline  # against the better serial run
    assert (
        "Updates of 128 rows (rate 0.05) instead of 256 (rate 0.1) make one process 1.6 times as fast: "
        "that part of a gain is those settings', not parallelism's." in said.reasons
    )
    said = verdict(serial(8.0), serial(8.0, seed=2, **small), contender("Gossip()", 5.0, seed=3, **small))
    assert "are not shown to help one process" in said


def test_all_that_a_smaller_batch_gained_is_no_reason_to_scale():
    """The case that used to turn round as soon as the baseline got the asynchronous ranks' batch."""
    small = {"rows_an_update": 128, "optimizer": "SGD(0.05)"}
    said = verdict(serial(8.0), serial(3.1, seed=2, **small), contender("Gossip()", 3.2, seed=3, **small))
    assert said.headline.startswith("No difference shown")


def test_nothing_that_scales():
    said = verdict(serial(8.0), serial(6.0, "Serial(threads=2)", threads=2))
    assert said.headline.startswith(
        "Nothing that scales was run: Serial(threads=2) with 2 threads reaches a held-out loss"
    )


def test_the_baseline_is_the_better_serial_run():
    said = verdict(serial(8.0), serial(5.0, seed=2, threads=4), contender(time=3.5))
    assert "1.43 times as fast as Serial() with 4 threads" in said.headline
    assert "not measured" not in said
    said = verdict(serial(8.0), serial(9.0, seed=2, threads=4), contender(time=4.0))
    assert "2 times as fast as Serial() to" in said.headline


def test_serial_alone_reached_it():
    said = verdict(serial(8.0), contender())
    assert said.headline == "Do not scale: only Serial() reaches a held-out loss of 0.2, in 8 s."


def test_serial_did_not_reach_it():
    seven = [*LUCK, 1.0]
    said = verdict(serial(luck=seven), contender(time=4.0, luck=seven))
    assert said.headline == (
        "Scale with AllReduce() on 2 workers: it reaches a held-out loss of 0.2 in 4 s, and Serial() does not reach it "
        "(in 7 of 7 rounds it was first)."
    )
    said = verdict(serial(luck=LUCK[:5]), contender(time=4.0, luck=LUCK[:5]))
    assert said.headline.startswith("No difference shown")  # five signs are not enough
    assert "2 more rounds, about" in said


def test_no_serial_run():
    said = verdict(contender(time=4.0), contender("LocalSGD(8)", 5.0))
    assert said.headline.startswith(
        "AllReduce() on 2 workers is the first to reach a held-out loss of 0.2: 1.25 times as fast"
    )
    assert "add Serial()" in said.headline
    said = verdict(contender(time=4.0), contender("AllReduce()", 4.0, seed=7))
    assert said.headline.startswith("No difference shown between")


def test_ten_repetitions_never_claim_opposite_things():
    """Of a true ratio of 1.1 at 15% noise: some see it, most do not, none sees the opposite."""
    random = np.random.default_rng(4)
    heads = []
    for _ in range(200):
        found = [
            series([summary(name, time * factor) for factor in np.exp(0.15 * random.standard_normal(6))])
            for name, time in (("Serial()", 8.8), ("AllReduce()", 8.0))
        ]
        heads.append(judge(found, 0.2, computed=False).headline)
    assert sum(head.startswith("Do not scale") for head in heads) <= 2
    assert any(head.startswith("No difference") for head in heads)
