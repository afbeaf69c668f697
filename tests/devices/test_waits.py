"""What the host waits for: nothing in a step that NCCL sums, one copy where sums are staged; and what it then sees."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from devices.conftest import both, gpus
from scaleml.comm import Aborted, PeerLost
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD, Adam
from scaleml.runtime.errors import NonFinite
from scaleml.strategies import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial

STEPS = 8


def waits_in_steps(cupy, strategy, model, *, apart, **settings):
    """Return how often ranks waited in their steps, but for those in which telemetry is due, on average a step."""
    found, steps = Counter(), [0]

    def prepare(loop):
        rank = getattr(loop, "rank", None)
        if rank is None:
            return
        rank.noise.due = np.inf
        take_step, recorder = rank.take_step, rank.recorder

        def counted():
            recorder.due = np.inf
            before = Counter(cupy.cuda.waits)
            take_step()
            found.update(cupy.cuda.waits - before)
            steps[0] += 1

        rank.take_step = counted

    where = gpus(strategy.layout(2), apart=apart)
    both(strategy, model, only=where, validation=None, prepare=prepare, simulated=not apart, **settings)
    assert steps[0] >= STEPS
    return {what: count / steps[0] for what, count in found.items()}


@pytest.mark.parametrize(
    "model", [LinearModel(), LinearModel("squared_hinge", penalty=None), MLP((5, 4), "tanh")], ids=repr
)
@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9, clip_norm=1.0), Adam(0.01)], ids=repr)
@pytest.mark.parametrize("strategy", [Serial(), AllReduce(), AllReduce(overlap=True), LocalSGD(3)], ids=repr)
def test_nobody_waits(cupy, strategy, optimizer, model):
    apart = strategy != Serial()  # threads that meet in NCCL
    assert waits_in_steps(cupy, strategy, model, apart=apart, optimizer=optimizer, sample_weight=np.full(96, 2.0)) == {}
    assert waits_in_steps(cupy, strategy, model, apart=apart, optimizer=optimizer) == {}


@pytest.mark.parametrize(
    ("strategy", "waits"),
    [
        (AllReduce(), {"synchronize": 1, "get": 1}),
        (LocalSGD(4), {"synchronize": 1, "get": 0.25}),
        (Gossip(), {"synchronize": 1, "get": 1}),
        (Hogwild(), {"get": 1}),
        (ParameterServer("bsp"), {"get": 1}),
    ],
    ids=repr,
)
def test_what_is_staged_waits_for_one_copy(cupy, strategy, waits):
    assert waits_in_steps(cupy, strategy, MLP((5,)), apart=False) == waits


@pytest.mark.parametrize("strategy", [Serial(), AllReduce(), LocalSGD(2), ParameterServer("bsp")], ids=repr)
def test_what_is_not_finite_names_the_step_where_it_was(cupy, strategy):
    said = []
    for where in ((), gpus(strategy.layout(2), apart=True)):
        with pytest.raises(NonFinite, match="The parameters of the last good step are kept") as caught:
            both(strategy, LinearModel("squared_error"), only=where, x=lambda x: x * 1e6, epochs=30, target=True)
        said.append((caught.value.step, caught.value.what))
    assert said[0] == said[1]


def test_the_last_good_parameters_are_those_of_the_last_look(cupy):
    kept = []

    def prepare(loop):
        rank, take_step = loop.rank, loop.rank.take_step
        rank.noise.due = np.inf

        def step():
            rank.recorder.due = np.inf
            take_step()
            if rank.step == 3:
                rank.look()
                kept.append(rank.state.params.get())
            elif rank.step == 5:
                rank.state.params *= np.nan
                kept.append(rank.last_good())

        rank.take_step = step

    with pytest.raises(NonFinite):
        both(Serial(), MLP((4,)), only=gpus(Serial().layout(1), apart=True), validation=None, prepare=prepare, epochs=4)
    assert np.isfinite(kept[0]).all()
    assert_array_equal(kept[0], kept[1])


def test_a_peer_that_is_gone_ends_what_the_gpu_waits_for(cupy):
    seen = []

    def prepare(loop):
        rank, take_step = loop.rank, loop.rank.take_step

        def step():
            if rank.world.rank == 1 and rank.step == 2:
                raise RuntimeError("out of order")
            try:
                take_step()
                rank.look()
            except (Aborted, PeerLost) as error:
                seen.append((type(error), np.isfinite(rank.last_good()).all()))
                raise

        rank.take_step = step

    with pytest.raises(RuntimeError, match="out of order"):
        both(AllReduce(), MLP((4,)), only=gpus(AllReduce().layout(2), apart=True), validation=None, prepare=prepare)
    assert [finite for _, finite in seen] == [True]
