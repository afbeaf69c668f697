"""What ranks print, by lines: their order, what is overwritten, what is too much, and who else prints in the process."""

from __future__ import annotations

import io
import logging
import sys
import threading

import pytest

from scaleml.cluster import rank_output
from scaleml.cluster.rank_output import CHUNK, OutputLines, captured
from scaleml.comm import inprocess
from scaleml.frameworks.current_rank import CurrentRank, as_rank
from scaleml.frameworks.rank_communicator import RankCommunicator


def written(*texts: str) -> list[str]:
    lines = OutputLines()
    for text in texts:
        lines.write("stdout", text)
    return [text for _, text in lines.drain(everything=True)]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("a\nb\n",), ["a", "b"]),
        (("a", "b", "\n", "\n"), ["ab", ""]),
        (("no end",), ["no end"]),
        (("10%\r", "50%\r", "100%\n"), ["100%"]),
        (("10%\r", "50%\r"), ["50%"]),
        (("windows\r\n",), ["windows"]),
        (("\x1b[1mbold\x1b[0m \x1b[2J\n",), ["bold \\x1b[2J"]),
        (("\udcff\n",), ["\\udcff"]),
        (("x" * (CHUNK + 1) + "\n",), ["x" * CHUNK, "x"]),
    ],
)
def test_lines(texts: tuple[str, ...], expected: list[str]) -> None:
    assert written(*texts) == expected


def test_a_line_without_an_end_is_shown_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        time = 5.0

        def now(self) -> float:
            return self.time

    clock = Clock()
    monkeypatch.setattr(rank_output, "WALL", clock)
    lines = OutputLines()
    told = []
    lines.on_lines = lambda: told.append(clock.time)
    lines.write("stderr", "1%\r2%")
    assert lines.drain() == []
    clock.time += 1.1
    lines.write("stdout", "whole\n")
    lines.write("stdout", "another\n")  # told of already
    assert told == [clock.time]
    assert lines.drain() == [("stdout", "whole"), ("stdout", "another"), ("stderr", "2%")]
    assert lines.drain(everything=True) == []


def test_who_prints_too_much_waits_until_it_is_sent_or_nobody_wants_it() -> None:
    lines, done = OutputLines(), threading.Event()

    def work() -> None:
        for _ in range(40):
            lines.write("stdout", "y" * CHUNK + "\n")
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    taken = 0
    while not done.is_set():
        part = lines.drain()
        assert sum(len(text) for _, text in part) <= CHUNK
        taken += len(part)
    thread.join()
    assert taken + len(lines.drain(everything=True)) == 40
    lines.close()
    for _ in range(40):
        lines.write("stdout", "y" * CHUNK + "\n")


def test_only_what_a_rank_prints_is_taken_and_its_logging_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    others = io.StringIO()
    monkeypatch.setattr(sys, "stdout", others)
    handlers, level = list(logging.root.handlers), logging.root.level
    barrier = threading.Barrier(2)

    def stranger() -> None:
        barrier.wait(10)
        barrier.wait(10)
        print("a stranger")

    def program(links: object) -> list[str]:
        lines = OutputLines()
        with captured(), as_rank(CurrentRank(RankCommunicator(links), lines.write)):  # type: ignore[arg-type]
            print("rank", file=sys.stdout)
            logging.root.addHandler(logging.StreamHandler(sys.stdout))
            logging.root.setLevel("DEBUG")
            logging.getLogger("of.a.program").debug("debugged")
            barrier.wait(10)
            thread.join()
        print("afterwards")
        return [text for _, text in lines.drain(everything=True)]

    thread = threading.Thread(target=stranger)
    thread.start()
    barrier.wait(10)
    assert inprocess.run(1, program) == [["rank", "debugged"]]
    assert others.getvalue() == "a stranger\nafterwards\n"
    assert sys.stdout is others
    assert (logging.root.handlers, logging.root.level) == (handlers, level)
