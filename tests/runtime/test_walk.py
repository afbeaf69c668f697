"""The way of one gradient: the files that run in a step of two ranks, from the strategy's call to the applied update."""

import sys

import numpy as np

from runtime import harness
from scaleml.models import MLP
from scaleml.optim import SGD
from scaleml.strategies import AllReduce

HOLD_IT = {
    "strategies/allreduce.py", "runtime/gradient.py", "models/network.py", "models/blocks.py", "models/losses.py",
    "comm/transport/socket_communicator.py", "comm/transport/direct.py", "comm/transport/channel.py", "comm/transport/link.py",
    "runtime/optimizer_step.py", "optim/base.py", "optim/sgd.py",
}  # fmt: skip
STAND_BY = {
    "runtime/training_rank.py", "data/batches.py", "comm/transport/frame.py", "comm/transport/plain_link.py", "comm/meter.py",
}  # fmt: skip
NOW_AND_THEN = {"telemetry/recorder.py"}  # ten times a second


def test_a_gradient_passes_few_files():
    ran = set()

    def note(frame, event, arg):
        if event == "call" and "/scaleml/" in frame.f_code.co_filename:
            ran.add(frame.f_code.co_filename.rsplit("/scaleml/")[-1])

    def prepare(loop):
        rank = loop.rank
        take_step = rank.take_step

        def followed():
            follow = rank.world.rank == 0 and rank.step == 3
            sys.setprofile(note if follow else None)
            try:
                take_step()
            finally:
                sys.setprofile(None)

        rank.take_step = followed

    x = np.random.default_rng(0).standard_normal((200, 10))
    y = (x[:, 0] > 0).astype(int)
    harness.on_threads(
        MLP((64,)), x, y, strategy=AllReduce(), workers=2, optimizer=SGD(0.1, momentum=0.9), prepare=prepare
    )
    assert ran - NOW_AND_THEN == HOLD_IT | STAND_BY
    assert len(HOLD_IT) == 12
