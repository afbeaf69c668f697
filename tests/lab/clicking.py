"""What a person does with a lab: press Run, watch, wait."""

from __future__ import annotations

from html import unescape

from runtime.harness import await_condition

LONG = 1_000_000
"""Epochs of a run that somebody will stop."""
PATIENCE = 90.0


def finished(lab):
    lab.start().wait(PATIENCE)
    assert lab._controller.error == ""
    settled(lab)
    return lab


def begun(lab):
    """Press Run and wait until ranks train."""
    lab.run_button.click()
    holds(lambda: lab.runs and lab.runs[-1].state == "running" and len(lab.runs[-1].history) > 20)
    return lab.runs[-1]


def holds(condition):
    assert await_condition(condition, PATIENCE)


def settled(lab):
    """Wait until nothing runs and the page shows it: a repaint has begun since, and ended."""
    holds(lambda: not lab.running)
    painted = lab.repaints + 1
    holds(lambda: lab._publisher.wake() or lab.repaints > painted)


def words(lab):
    """Return what is said, and what is said in red."""
    return unescape(lab._board.words.value + lab._board.notes.value)


def steps(run):
    return float(run.history["step"].max(initial=0))
