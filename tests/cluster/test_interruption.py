"""Breaking a call off from another thread: before it, in the middle, and never once it is over."""

from __future__ import annotations

import threading

import pytest

from scaleml.cluster.interruption import Interrupted, Interruption


def test_a_busy_loop_is_broken_off_and_what_follows_is_not() -> None:
    interruption, running = Interruption(), threading.Event()
    ends: list[str] = []

    def busy() -> None:
        try:
            while True:
                running.set()
        finally:
            ends.append("cleaned up")

    def work() -> None:
        try:
            interruption.call(busy)
        except Interrupted:
            ends.append("interrupted")
        ends.append(str(sum(range(10_000))))  # not broken off

    thread = threading.Thread(target=work)
    thread.start()
    assert running.wait(10)
    interruption.interrupt()
    thread.join(10)
    assert ends == ["cleaned up", "interrupted", "49995000"]
    interruption.interrupt()  # nobody is there any more
    assert sum(range(10_000)) == 49995000


def test_who_was_told_before_does_not_begin() -> None:
    interruption = Interruption()
    assert interruption.call(lambda: 3) == 3
    interruption.interrupt()
    with pytest.raises(Interrupted):
        interruption.call(lambda: pytest.fail("it has begun"))


def test_code_that_catches_everything_is_told_again() -> None:
    interruption = Interruption()
    turns, caught = 0, 0

    def stubborn() -> None:
        nonlocal turns, caught
        while caught < 3:
            try:
                while True:
                    turns += 1
            except Interrupted:
                caught += 1

    thread = threading.Thread(target=lambda: interruption.call(stubborn))
    thread.start()
    told = -1
    while thread.is_alive():
        if turns > told:  # it goes on
            told = turns + 1000
            interruption.interrupt()
        thread.join(0.001)
    assert caught == 3
