"""Reasons of verdicts: what a headline rests on, and all that is to be known besides."""

import pickle

from scaleml.telemetry import Comparison
from verdict_cases import LUCK, contender, serial, series, summary, verdict


def test_what_was_broken_on_purpose():
    slow, more = "Slow(rank=1, factor=4.0)", ("Kill(rank=0)", "Pause(rank=1)", "Crash(rank=1)")
    said = verdict(serial(8.0), contender(time=4.0, faults=(slow,)))
    assert f"AllReduce() on 2 workers suffered on purpose: {slow}." in said.reasons
    said = verdict(serial(8.0, faults=more), contender(time=4.0, faults=more))
    assert "Every run suffered on purpose: Kill(rank=0), Pause(rank=1) and 1 more." in said.reasons


def test_why_not_communication():
    slow = contender(
        time=20.0,
        samples_per_s=400.0,
        compute=0.2,
        wait=0.1,
        comm=0.65,
        compute_per_step=9e-5,
        bytes_per_step=1.2e6,
    )
    said = verdict(serial(8.0), slow)
    assert "Of its ranks' time 20% is compute, 10% waiting, 65% communication (1.2 MB sent a step)." in said
    assert "A step has only 90 us of computing, too little to share" in said


def test_costs_say_whose_they_are_where_nothing_else_does():
    runs = [
        contender(name, samples_per_s=rate, compute=0.5, wait=0.3, comm=0.1) for name, rate in (("a", 1.0), ("b", 2.0))
    ]
    assert (
        "b on 2 workers: of its ranks' time 50% is compute, 30% waiting, 10% communication." in verdict(*runs).reasons
    )


def test_why_not_statistics():
    stale = contender(time=9.0, samples_per_s=2000.0, samples_to_target=18000.0, steps_to_target=360.0, staleness=1.84)
    said = verdict(serial(8.0), stale)
    assert (
        "processes 2.00x the samples a second of Serial() "
        "and needs 2.25x the samples to the target (360 steps against 80)." in said
    )
    assert "Its updates are 1.8 steps stale on average." in said


def test_two_that_are_not_told_apart():
    said = verdict(serial(8.0), contender(time=4.1), contender("LocalSGD(8)", 4.0, seed=4))
    assert said.best == 2
    assert (
        "AllReduce() on 2 workers is not shown to be slower than LocalSGD(8) on 2 workers: take either." in said.reasons
    )
    said = verdict(serial(8.0), contender(time=6.0), contender("LocalSGD(8)", 4.0, seed=4))
    assert "take either" not in said


def test_nobody_reached_the_target():
    said = verdict(serial(), contender(samples_per_s=1900.0, best=0.21, held=0.21))
    assert said.headline.startswith(
        "No run reached a held-out loss of 0.2 and stayed there: the closest is AllReduce() on 2 workers with 0.21 after 20 s."
    )
    assert said.best == 1


def test_one_that_missed_the_target_is_named():
    said = verdict(serial(8.0), contender(samples_per_s=1500.0), contender("LocalSGD(8)", 4.0))
    assert "AllReduce() on 2 workers (0.3 at best) did not reach it and stay there." in said.reasons
    assert said.best == 2


def test_more_workers_than_cores():
    said = verdict(serial(8.0, cores=1), contender(time=4.0, cores=1, samples_to_target=7000.0))
    assert said.headline.startswith("This machine cannot tell whether scaling pays")
    assert "AllReduce() on 2 workers needs the fewest samples to the target, 7,000." in said.headline
    assert "2 workers shared 1 core: speed-ups measured here mean nothing." in said.reasons
    assert said.best is None


def test_more_workers_than_cores_that_update_on_fewer_rows():
    local = contender("LocalSGD(8)", 4.0, cores=1, rows_an_update=128, optimizer="SGD(0.05)")
    same = serial(8.1, "Serial(), SGD(0.05)", cores=1, rows_an_update=128, optimizer="SGD(0.05)")
    said = verdict(serial(8.0, cores=1), same, local)
    assert said.headline.startswith("This machine cannot tell whether scaling pays")
    assert "make one process" not in said


def test_some_with_more_workers_than_cores():
    said = verdict(serial(8.0), contender(time=5.0), contender("Gossip()", 3.0, workers=9))
    assert said.best == 1
    assert (
        "9 workers shared 4 cores: the speed-ups of Gossip() on 9 workers measured here mean nothing." in said.reasons
    )


def test_a_failed_run_is_named_with_its_error():
    lost = series([summary("Gossip()", state="failed", error="rank 1 was lost at step 12.", time=3.0) for _ in LUCK])
    said = verdict(serial(8.0), contender(time=4.0), lost)
    assert "Gossip() on 2 workers failed after 3 s: rank 1 was lost at step 12." in said.reasons
    assert said.best == 1
    assert verdict(lost).headline == "No run finished."
    assert "rank 1 was lost" in verdict(lost)


def test_a_diverged_run_is_named():
    bad = contender("Gossip()", loss=float("nan"), best=0.69)
    said = verdict(serial(8.0), contender(time=4.0), bad)
    assert (
        "Gossip() on 2 workers diverged: after 0.69 at best its loss is no longer finite; try a smaller learning rate."
        in said.reasons
    )


def test_advice_is_said_once_whoever_needs_it():
    advice = "Divide the learning rate by 10. Look at X first: column 2 is far larger than the others: scale it"
    lost = [
        series(
            [
                summary(name, state="failed", error=f"rank {rank} failed at step {rank + 1}. {advice}", time=3.0)
                for _ in LUCK
            ]
        )
        for rank, name in enumerate(["Gossip()", "LocalSGD(2)"])
    ]
    worse = [contender(name, loss=float("nan"), best=0.69) for name in ("Hogwild()", "LocalSGD(4)")]
    said = verdict(serial(8.0), contender(time=4.0), *lost, *worse)
    assert f"Gossip() on 2 workers failed after 3 s: rank 0 failed at step 1. {advice}." in said.reasons
    assert "LocalSGD(2) on 2 workers failed after 3 s: rank 1 failed at step 2." in said.reasons
    assert said.count("Divide the learning rate by 10") == said.count("scale it") == said.count("try a smaller") == 1
    assert said.count("diverged") == 2


def test_a_run_that_learnt_and_then_diverged_is_named():
    bad = contender("Gossip()", loss=97.2, best=0.3)
    said = verdict(serial(8.0), contender(time=4.0), bad)
    assert "Gossip() on 2 workers diverged: after 0.3 at best its loss rose to 97.2" in said


def test_a_run_that_never_learnt_is_named():
    said = verdict(serial(8.0), contender(best=0.7, loss=0.8))
    assert "never got below its first loss of 0.7" in said


def test_running_and_stopped_runs():
    live = series([*(summary(time_to_target=4.0 * luck) for luck in LUCK[:5]), summary(state="running")])
    said = verdict(serial(8.0), live, contender("Gossip()", state="stopped", luck=[1.0]))
    assert said.headline.startswith("So far (not all runs have finished): Scale with")
    assert "5 rounds;" in said.headline
    assert "Gossip() on 2 workers was stopped after 20 s." in said.reasons


def test_from_cold_the_start_may_eat_the_gain():
    said = verdict(serial(8.0, placing=0.1), contender(time=4.0, placing=6.1))
    assert said.headline.startswith("Scale with AllReduce() on 2 workers where the data is in place: it is 2 times")
    assert (
        "From cold Serial() is first: bringing the data and starting took 6.1 s against 100 ms, and a run saves 4 s; "
        "it pays for runs 1.5 times as long, or for 2 such runs on data in place." in said.reasons
    )
    said = verdict(serial(8.0, placing=0.1), contender(time=4.0, placing=2.0))
    assert "in place" not in said.headline
    assert "From cold, with bringing the data and starting, it is 6 s against 8.1 s." in said.reasons


def test_a_computed_target_and_training_losses_are_admitted():
    said = verdict(serial(8.0, kind="training"), contender(time=4.0, kind="training"), computed=True)
    assert "to a training loss of 0.2" in said.headline
    assert "No target was given: 0.2 is the loss that every finished run that learnt reached and held." in said.reasons
    assert "Nothing was held out" in said


def test_a_target_that_is_too_easy():
    said = verdict(serial(0.5, early=True), contender(time=0.3, early=True))
    assert "set a harder target" in said


def test_a_target_met_at_the_start_divides_by_nothing():
    said = verdict(serial(0.0, samples_to_target=0.0), contender(time=0.0, samples_to_target=0.0))
    assert said.headline.startswith("No difference shown")


def test_nothing_to_judge():
    assert Comparison([]).verdict == "Nothing was compared."
    nothing = {"first": float("nan"), "loss": float("nan"), "best": float("nan")}
    waiting = series([summary(time=float("nan"), state="starting", **nothing)])
    assert verdict(waiting).headline == "Nothing to judge yet: no run has taken a step."
    assert "there is no target" in verdict(serial(**nothing), contender(**nothing), target=None)


def test_a_verdict_is_a_string_that_survives_pickling():
    said = verdict(serial(8.0), contender(time=4.0))
    again = pickle.loads(pickle.dumps(said))
    assert isinstance(again, str)
    assert (again, again.headline, again.reasons, again.best) == (said, said.headline, said.reasons, said.best)


def test_runs_that_hardly_learnt_are_said_to_have_not():
    flat = {"first": 1.61, "best": 1.59, "loss": 1.59, "end": 1.59, "held": 1.59}
    said = verdict(serial(8.0, **flat), contender(time=4.0, **flat), target=1.6)
    assert said.reasons[0].startswith(
        "Hardly learnt: no run came more than 2% below its first held-out loss (1.61, 1.59 at best)"
    )
    one_learnt = verdict(serial(8.0, **flat), contender(time=4.0, **flat | {"best": 1.5}), target=1.6)
    assert "Hardly" not in one_learnt
    guess = {"score": 0.6, "baseline": 0.61, "score_name": "accuracy"}
    said = verdict(serial(8.0, **guess), contender(time=4.0, **guess))
    assert "Hardly learnt: no run's accuracy (0.6 at best) is above that of knowing nothing, 0.61" in said
    assert "Hardly" not in verdict(serial(8.0, **guess), contender(time=4.0, **guess | {"score": 0.7}))
    assert "Hardly" not in verdict(serial(8.0), contender(time=4.0))
