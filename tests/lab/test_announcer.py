"""What is read aloud: calm, and the newest is never lost."""

from __future__ import annotations

import itertools

from scaleml.lab.announcer import EVERY, Announcer


class Hands:
    def __init__(self):
        self.time = 0.0
        self.now = lambda: self.time

    def sleep(self, seconds):
        raise AssertionError("nobody should wait")


def test_at_most_one_change_in_five_seconds_and_the_newest_last():
    clock = Hands()
    announcer = Announcer(clock)
    said = []
    announcer.widget.observe(lambda change: said.append((clock.time, change["new"])), "value")
    for tenth in range(200):
        clock.time = tenth / 10
        announcer.tell(f"turn {min(tenth, 97)}")
    assert [text for _, text in said][-1] == "turn 97"
    assert all(later - sooner >= EVERY for (sooner, _), (later, _) in itertools.pairwise(said))
    assert len(said) == 3
    assert not announcer.waits


def test_what_is_said_is_escaped():
    announcer = Announcer(Hands())
    announcer.tell("<b>")
    assert announcer.widget.value == "&lt;b&gt;"
