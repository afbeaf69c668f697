"""Every situation has its verdict, and the verdict has its reasons."""

import pickle

import pytest

from scaleml.telemetry import Comparison
from scaleml.telemetry.summary import Summary, with_speedups
from scaleml.telemetry.verdict import judge

SERIAL = {"strategy": "Serial()", "is_serial": True, "cores": 1}


def summary(strategy="AllReduce()", time_to_target=None, **values):
    """A finished run that reached the target at that time, or did not if that is None."""
    given = {
        "strategy": strategy,
        "workers": 1 if strategy.startswith("Serial") else 2,
        "cores": 4,
        "time": 20.0,
        "samples_per_s": 1000.0,
        "first": 0.7,
        "best": 0.15,
        "loss": 0.15,
    }
    given["is_serial"] = strategy.startswith("Serial")
    if time_to_target is not None:
        given |= {"time_to_target": time_to_target, "samples_to_target": 8000.0, "steps_to_target": 80.0}
    else:
        given |= {"best": 0.3, "loss": 0.3}
    return Summary(**(given | values))


def verdict(*rows, target=0.2, computed=False):
    return judge(with_speedups(rows), target, computed)


def test_scale():
    said = verdict(summary("Serial()", 8.0), summary(time_to_target=4.0, samples_per_s=2000.0))
    assert (
        said.headline
        == "Scale with AllReduce() on 2 workers: it is 2 times as fast as Serial() to a held-out loss of 0.2 "
        "(4 s against 8 s)."
    )
    assert said.best == 1
    assert (
        "AllReduce() on 2 workers processes 2.00x the samples a second of Serial() "
        "and needs as many samples to the target." in said.reasons
    )
    assert "Its efficiency is 100%: 2 workers do the work of 2." in said.reasons
    assert "The baseline used one thread; one process with all 4 cores was not measured." in said.reasons
    assert said == " ".join([said.headline, *said.reasons])


def test_do_not_scale():
    said = verdict(summary("Serial()", 8.0), summary(time_to_target=10.0), summary("Gossip()", 12.0))
    assert (
        said.headline == "Do not scale: Serial() is faster. It reaches a held-out loss of 0.2 in 8 s, "
        "the best that scales, AllReduce() on 2 workers, in 10 s."
    )
    assert said.best == 0


def test_nothing_that_scales():
    said = verdict(summary("Serial()", 8.0), summary("Serial(threads=2)", 6.0, is_serial=True, threads=2))
    assert said.headline.startswith(
        "Nothing that scales was run: Serial(threads=2) with 2 threads reaches a held-out loss"
    )


def test_what_was_broken_on_purpose():
    slow, more = "Slow(rank=1, factor=4.0)", ("Kill(rank=0)", "Pause(rank=1)", "Crash(rank=1)")
    said = verdict(summary("Serial()", 8.0), summary(time_to_target=4.0, faults=(slow,)))
    assert f"AllReduce() on 2 workers suffered on purpose: {slow}." in said.reasons
    said = verdict(summary("Serial()", 8.0, faults=more), summary(time_to_target=4.0, faults=more))
    assert "Every run suffered on purpose: Kill(rank=0), Pause(rank=1) and 1 more." in said.reasons


def test_why_not_communication():
    slow = summary(
        time_to_target=20.0,
        samples_per_s=400.0,
        compute=0.2,
        wait=0.1,
        comm=0.65,
        compute_per_step=9e-5,
        bytes_per_step=1.2e6,
    )
    said = verdict(summary("Serial()", 8.0), slow)
    assert "Of its ranks' time 20% is compute, 10% waiting, 65% communication (1.2 MB sent a step)." in said
    assert "A step has only 90 us of computing, too little to share" in said


def test_costs_say_whose_they_are_where_nothing_else_does():
    runs = [
        summary(name, samples_per_s=rate, compute=0.5, wait=0.3, comm=0.1) for name, rate in (("a", 1.0), ("b", 2.0))
    ]
    assert (
        "b on 2 workers: of its ranks' time 50% is compute, 30% waiting, 10% communication." in verdict(*runs).reasons
    )


def test_why_not_statistics():
    stale = summary(
        time_to_target=9.0, samples_per_s=2000.0, samples_to_target=18000.0, steps_to_target=360.0, staleness=1.84
    )
    said = verdict(summary("Serial()", 8.0), stale)
    assert (
        "processes 2.00x the samples a second of Serial() "
        "and needs 2.25x the samples to the target (360 steps against 80)." in said
    )
    assert "Its updates are 1.8 steps stale on average." in said


def test_the_baseline_is_the_better_serial_run():
    rows = with_speedups([summary("Serial()", 8.0), summary("Serial()", 5.0, threads=4), summary(time_to_target=4.0)])
    assert [row.speedup for row in rows] == pytest.approx([0.625, 1, 1.25])
    assert [row.efficiency for row in rows] == pytest.approx([0.625, 1, 0.625])
    said = judge(rows, 0.2, computed=False)
    assert "as fast as Serial() with 4 threads" in said.headline
    assert "not measured" not in said


def test_more_threads_may_be_slower():
    rows = with_speedups([summary("Serial()", 8.0), summary("Serial()", 9.0, threads=4), summary(time_to_target=4.0)])
    assert rows[2].speedup == pytest.approx(2)


@pytest.mark.parametrize("time", [7.7, 8.0, 8.3])
def test_within_noise_is_no_gain(time):
    said = verdict(summary("Serial()", 8.0), summary(time_to_target=time))
    assert said.headline.startswith("Do not scale: AllReduce() on 2 workers is no faster than Serial().")
    assert "within noise (<5%)" in said.headline
    assert said.best == 0


def test_two_winners_within_noise():
    said = verdict(summary("Serial()", 8.0), summary(time_to_target=4.1), summary("LocalSGD(8)", 4.0))
    assert said.best == 2
    assert "AllReduce() on 2 workers is within noise of it (<5%): take either." in said.reasons


def test_nobody_reached_the_target():
    said = verdict(summary("Serial()"), summary(samples_per_s=1900.0, best=0.21))
    assert said.headline.startswith(
        "No run reached a held-out loss of 0.2: the closest is AllReduce() on 2 workers with 0.21 after 20 s."
    )
    assert said.best is None
    assert "speed-up is the ratio of samples a second" in said


def test_samples_a_second_stand_in_and_say_so():
    rows = with_speedups([summary("Serial()", 8.0), summary(samples_per_s=1500.0), summary("LocalSGD(8)", 4.0)])
    assert [row.speedup_by for row in rows] == ["time to target", "samples/s", "time to target"]
    assert rows[1].speedup == pytest.approx(1.5)
    said = judge(rows, 0.2, computed=False)
    assert "AllReduce() on 2 workers (0.3 at best) did not reach it." in said.reasons
    assert said.best == 2


def test_serial_alone_reached_it():
    said = verdict(summary("Serial()", 8.0), summary())
    assert said.headline == "Do not scale: only Serial() reaches a held-out loss of 0.2, in 8 s."


def test_serial_did_not_reach_it():
    said = verdict(summary("Serial()"), summary(time_to_target=4.0))
    assert (
        said.headline == "Scale with AllReduce() on 2 workers: it reaches a held-out loss of 0.2 in 4 s, "
        "and Serial() does not reach it in 20 s."
    )


def test_no_serial_run():
    said = verdict(summary(time_to_target=4.0), summary("LocalSGD(8)", 5.0))
    assert said.headline.startswith("AllReduce() on 2 workers is the first to reach")
    assert "add Serial()" in said.headline


def test_more_workers_than_cores():
    said = verdict(summary("Serial()", 8.0, cores=1), summary(time_to_target=4.0, cores=1, samples_to_target=7000.0))
    assert said.headline.startswith("This machine cannot tell whether scaling pays")
    assert "AllReduce() on 2 workers needs the fewest samples to the target, 7,000." in said.headline
    assert "2 workers shared 1 core: speed-ups measured here mean nothing." in said.reasons
    assert said.best is None


def test_some_with_more_workers_than_cores():
    said = verdict(summary("Serial()", 8.0), summary(time_to_target=5.0), summary("Gossip()", 3.0, workers=9))
    assert said.best == 1
    assert (
        "9 workers shared 4 cores: the speed-ups of Gossip() on 9 workers measured here mean nothing." in said.reasons
    )


def test_a_failed_run_is_named_with_its_error():
    lost = summary("Gossip()", state="failed", error="rank 1 was lost at step 12.", time=3.0)
    said = verdict(summary("Serial()", 8.0), summary(time_to_target=4.0), lost)
    assert "Gossip() on 2 workers failed after 3 s: rank 1 was lost at step 12." in said.reasons
    assert said.best == 1
    assert verdict(lost).headline == "No run finished."
    assert "rank 1 was lost" in verdict(lost)


def test_a_diverged_run_is_named():
    bad = summary("Gossip()", loss=float("nan"), best=0.69)
    said = verdict(summary("Serial()", 8.0), summary(time_to_target=4.0), bad)
    assert (
        "Gossip() on 2 workers diverged: after 0.69 at best its loss is no longer finite; try a smaller learning rate."
        in said.reasons
    )


def test_a_run_that_learnt_and_then_diverged_is_named():
    bad = summary("Gossip()", loss=97.2, best=0.3)
    said = verdict(summary("Serial()", 8.0), summary(time_to_target=4.0), bad)
    assert "Gossip() on 2 workers diverged: after 0.3 at best its loss rose to 97.2" in said


def test_a_run_that_never_learnt_is_named():
    said = verdict(summary("Serial()", 8.0), summary(best=0.7, loss=0.8))
    assert "never got below its first loss of 0.7" in said


def test_running_and_stopped_runs():
    said = verdict(
        summary("Serial()", 8.0), summary(time_to_target=4.0, state="running"), summary("Gossip()", state="stopped")
    )
    assert said.headline.startswith("So far (not all runs have finished): Scale with")
    assert "Gossip() on 2 workers was stopped after 20 s." in said.reasons


def test_from_cold_the_start_may_eat_the_gain():
    said = verdict(summary("Serial()", 8.0, placing=0.1), summary(time_to_target=4.0, placing=6.0))
    assert (
        "This holds with the data in place: placing it and starting took 6 s, and from cold Serial() is first."
        in said.reasons
    )
    assert "from cold" not in verdict(summary("Serial()", 8.0, placing=0.1), summary(time_to_target=4.0, placing=2.0))


def test_a_computed_target_and_training_losses_are_admitted():
    said = verdict(
        summary("Serial()", 8.0, kind="training"), summary(time_to_target=4.0, kind="training"), computed=True
    )
    assert "to a training loss of 0.2" in said.headline
    assert "No target was given: 0.2 is the loss that every finished run that learnt reached." in said.reasons
    assert "Nothing was held out" in said


def test_a_target_that_is_too_easy():
    said = verdict(summary("Serial()", 0.5, early=True), summary(time_to_target=0.3, early=True))
    assert "set a harder target" in said


def test_a_target_met_at_the_start_divides_by_nothing():
    said = verdict(summary("Serial()", 0.0, samples_to_target=0.0), summary(time_to_target=0.0, samples_to_target=0.0))
    assert said.headline.startswith("Do not scale")


def test_nothing_to_judge():
    assert Comparison([]).verdict == "Nothing was compared."
    assert (
        verdict(
            summary(time=float("nan"), state="starting", first=float("nan"), loss=float("nan"), best=float("nan"))
        ).headline
        == "Nothing to judge yet: no run has taken a step."
    )
    blank = {"first": float("nan"), "loss": float("nan"), "best": float("nan")}
    assert "there is no target" in verdict(summary("Serial()", **blank), summary(**blank), target=None)


def test_a_verdict_is_a_string_that_survives_pickling():
    said = verdict(summary("Serial()", 8.0), summary(time_to_target=4.0))
    again = pickle.loads(pickle.dumps(said))
    assert isinstance(again, str)
    assert (again, again.headline, again.reasons, again.best) == (said, said.headline, said.reasons, said.best)
