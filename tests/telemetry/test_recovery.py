"""What is told of a run's return from a loss."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace

import pytest

from scaleml.telemetry import History
from scaleml.telemetry.recovery import PHASES, Recovery, recovery_fragment, recovery_lines

SECONDS = {"noticed": 0.05, "stopped": 0.01, "worker": 0.4, "data": 0.04, "started": 0.1, "replayed": 0.2}
ONE = Recovery(2.5, "rank 1 replaced", 120, 100, SECONDS)


def test_the_phases_add_up_and_the_cluster_has_its_part_of_them() -> None:
    assert ONE.seconds == pytest.approx(0.8)
    assert ONE.floor == pytest.approx(0.49)
    assert ONE.steps_again == 20
    assert replace(ONE, goes_on_from=-1).steps_again == 120, "from the beginning"
    (line,) = recovery_lines([ONE])
    assert line.startswith("rank 1 replaced: first new step after 800 ms, of which the cluster needs 490 ms; 20 steps")
    assert [name for name, _, _ in PHASES.values() if name in line] == [name for name, _, _ in PHASES.values()]


def test_what_is_not_over_says_so() -> None:
    going = replace(ONE, phases={key: SECONDS[key] for key in ("noticed", "worker", "started")})
    assert not going.is_over
    assert "ranks went on after 550 ms" in going.sentence


def test_bars_are_as_long_as_the_phases_on_one_scale() -> None:
    double = replace(ONE, time=9.0, phases={key: 2 * each for key, each in SECONDS.items()})
    html = recovery_fragment([ONE, double])
    widths = [float(width) for width in re.findall(r"height:100%;width:([\d.]+)%", html)]
    assert sum(widths[:6]) == pytest.approx(50, abs=0.1)
    assert sum(widths[6:]) == pytest.approx(100, abs=0.1)
    floors = [float(width) for width in re.findall(r"height:3px;margin-top:1px;width:([\d.]+)%", html)]
    assert floors == pytest.approx([100 * ONE.floor / double.seconds, 100 * double.floor / double.seconds], abs=0.01)
    assert recovery_fragment([]) == ""
    assert "the last 5 of 7" in recovery_fragment([ONE] * 7)


def test_words_are_escaped() -> None:
    assert "<script>" not in recovery_fragment([replace(ONE, what="<script>alert(1)</script>")])


def test_a_history_keeps_them_and_knows_the_newest_better_later() -> None:
    history = History()
    early = replace(ONE, phases={"noticed": 0.05})
    history.note_recovery(early)
    history.note_recovery(ONE)
    history.note_recovery(replace(ONE, time=7.0))
    assert history.recoveries == (ONE, replace(ONE, time=7.0))
    assert pickle.loads(pickle.dumps(history)).recoveries == history.recoveries


def test_a_history_that_was_saved_before_there_were_any_can_be_read() -> None:
    state = History().__getstate__()
    del state["_recoveries"]
    old = History.__new__(History)
    old.__setstate__(state)
    assert old.recoveries == ()
