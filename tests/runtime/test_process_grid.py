"""The process grid: who talks to whom along which axis, and who holds which parameters."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from runtime.test_train_state import X, Y
from scaleml.comm import inprocess
from scaleml.models import LinearModel, Signature
from scaleml.optim import SGD
from scaleml.runtime.evaluation import Evaluation
from scaleml.runtime.plan import Plan
from scaleml.runtime.process_grid import ParameterPartition, ProcessGrid, cut
from scaleml.runtime.rank_device import RankDevice
from scaleml.runtime.train_state import TrainState
from scaleml.strategies import AllReduce, Layout, ParameterServer
from scaleml.telemetry.recorder import Recorder


@pytest.mark.parametrize(("size", "parts", "width"), [(10, 3, 1), (7, 7, 1), (12, 5, 3), (6, 4, 2)])
def test_slices_follow_each_other_and_are_whole_multiples(size, parts, width):
    slices = cut(size, parts, width)
    assert [stop for _, stop in slices[:-1]] == [start for start, _ in slices[1:]]
    assert (slices[0][0], slices[-1][1]) == (0, size)
    assert all((stop - start) % width == 0 for start, stop in slices)
    assert max(b - a for a, b in slices) - min(b - a for a, b in slices) <= width


def test_a_partition_whose_owners_leave_a_gap_is_refused():
    with pytest.raises(AssertionError, match="do not follow each other"):
        ParameterPartition(4, ((0, 2), (3, 4)), (0, 1))


def test_data_and_servers_have_communicators_of_their_own():
    layout, partition = Layout(3, 2), ParameterPartition.of_servers(10, 3, 2)

    def look(world):
        grid = ProcessGrid.build(world, layout, partition)
        own = grid.data or grid.server
        total = np.array([float(world.rank)])
        own.allreduce(total)
        return grid.axis, grid.coordinate, own.ranks, total[0], (grid.own.start, grid.own.stop)

    assert inprocess.run(5, look) == [
        ("data", 0, (0, 1, 2), 3.0, (0, 10)),
        ("data", 1, (0, 1, 2), 3.0, (0, 10)),
        ("data", 2, (0, 1, 2), 3.0, (0, 10)),
        ("server", 0, (3, 4), 7.0, (0, 5)),
        ("server", 1, (3, 4), 7.0, (5, 10)),
    ]


def test_without_servers_the_data_axis_is_the_world():
    def look(world):
        grid = ProcessGrid.build(world, Layout(2), ParameterPartition.replicated(4, 2))
        return grid.workers is world, grid.server

    assert inprocess.run(2, look) == [(True, None)] * 2


def test_ranks_that_hold_slices_gather_the_whole():
    whole = np.arange(11, dtype=np.float32)
    partition = ParameterPartition.sliced(11, 3)

    def gather(group):
        return partition.gather(whole[partition.own(group.rank)].copy(), group)

    for found in inprocess.run(3, gather):
        assert_array_equal(found, whole)
        assert found.dtype == whole.dtype


def test_who_holds_all_sends_nothing():
    partition = ParameterPartition.replicated(4, 2)

    def gather(group):
        w = np.ones(4)
        group.meter.reset()
        return partition.gather(w, group) is w, group.meter.bytes_sent

    assert inprocess.run(2, gather) == [(True, 0)] * 2


def test_what_ranks_have_left_becomes_a_whole_or_nothing():
    servers = ParameterPartition.of_servers(6, workers=2, servers=2)
    whole = np.arange(6.0)
    assert servers.assemble({1: whole}) is whole
    assert_array_equal(servers.assemble({2: whole[:3], 3: whole[3:]}), whole)
    assert servers.assemble({2: whole[:3]}) is None
    assert servers.assemble({}) is None


def test_ranks_that_hold_slices_evaluate_the_whole():
    # No strategy cuts the parameters over ranks that train yet: evaluation must not mind.
    model = LinearModel(dtype="float64").build(Signature(X.shape[1], dtype="float64"))
    w = np.random.default_rng(1).standard_normal(model.size)
    expected = model.summarise(model.statistics(w, X, Y.astype(float)))
    partition = ParameterPartition.sliced(model.size, 2)
    plan = Plan(model, AllReduce(), SGD(0.1), Layout(2), (75, 75), 1, 10, 0, "float64", evaluate_every=150)

    def evaluate(world):
        grid = ProcessGrid.build(world, Layout(2), partition)
        mine = slice(75 * world.rank, 75 * (world.rank + 1))
        evaluation = Evaluation(
            *(plan, grid, (X[mine], Y[mine].astype(float), None), TrainState(w)),
            *(Recorder(world.rank, world.meter), RankDevice(plan, world.rank)),
        )
        evaluation.at(w[partition.own(world.rank)], 0)
        return evaluation.last, evaluation.kept.tolist()

    for rank, (last, kept) in enumerate(inprocess.run(2, evaluate)):
        assert last == pytest.approx(expected, rel=1e-12)
        assert kept == w[partition.own(rank)].tolist()


def test_a_plan_knows_its_partition():
    model = LinearModel().build(Signature(5))
    plan = Plan(model, ParameterServer(servers=2), SGD(0.1), Layout(2, 2), (4, 4), 1, 2, 0, "float32", 0)
    assert plan.partition.slices == ((0, 6), (0, 6), (0, 3), (3, 6))
