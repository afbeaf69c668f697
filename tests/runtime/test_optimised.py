"""Under ``python -O`` there are no assertions: what comes from outside is still checked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import click
import numpy as np
from scaleml.__main__ import read_strategies
from scaleml.comm import CorruptFrame, inprocess
from scaleml.comm.communicator import Message
from scaleml.faults import Slow
from scaleml.runtime.commands import Command
from scaleml.runtime.parameter_server.worker_clocks import WorkerClocks
from scaleml.runtime.serialization import describe, fault_from, optimizer_from, rebuild, strategy_from

if __debug__:
    raise SystemExit("this is to run without assertions")


def refused(error, call, *arguments):
    try:
        found = call(*arguments)
    except error:
        return
    raise SystemExit(f"{call} of {arguments} gave {found!r}")


for package, name in [("os", "system"), ("runtime", "Plan"), ("optim", "clip"), ("strategies", "Context"), ("..os", "a")]:
    refused(ValueError, rebuild, {"package": package, "name": name, "fields": {}})
slow = describe(Slow(0, 2))
for kind in (strategy_from, optimizer_from):
    refused(ValueError, kind, slow)
refused(ValueError, fault_from, {"package": "strategies", "name": "Serial", "fields": {}})
refused(ValueError, Command.decode, b'{"number": 1, "verb": "system"}')
refused(click.BadParameter, read_strategies, "Serial()] + [1")
refused(TypeError, lambda: Message(0, 0, 0, 0, 0, 0.0, 0, b"bytes").array)
clocks = WorkerClocks(2)
clocks.tick(0, 0)
refused(RuntimeError, clocks.tick, 0, 0)

one, other = inprocess.groups(2, shared_memory=False)
link = other.mesh.channel.links[0]
one.send(np.zeros(4), 1)
while link.peek(True) is None:
    pass
refused(CorruptFrame, link.read_into, memoryview(bytearray(3)))
link.read_into(memoryview(bytearray(32)), True)
sending = one.send_start(np.zeros(20_000), 1)
while link.peek(True) is None:
    pass
refused(CorruptFrame, link.read_small)
print("all refused")
"""


def test_what_comes_from_outside_is_checked_without_assertions() -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-c", PROGRAM],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert (done.returncode, done.stdout) == (0, "all refused\n"), done.stderr
