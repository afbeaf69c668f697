"""What a run says of itself after changes and switches: the plan in force, not the one that it began with."""

from __future__ import annotations

import pytest
from distributed import Client

from cluster.conftest import BATCH, RATE, Problem
from cluster.harness import running
from scaleml import SGD, AllReduce, LocalSGD, ParameterServer, Serial
from scaleml.strategies import Layout


def test_what_was_changed_is_in_force(threads: Client, problem: Problem) -> None:
    with running(**problem.endless(client=threads)) as run:
        assert (run.plan.optimizer, run.plan.batch_size, run.plan.strategy) == (SGD(RATE), BATCH, AllReduce())
        run.update(learning_rate=0.25, batch_size=10**6)
        assert (run.plan.optimizer, run.plan.batch_size) == (SGD(0.25), len(problem.X))
        assert f"{SGD(0.25)!r}, batch {len(problem.X)}" in run.settings
        run.update(strategy=LocalSGD(2), batch_size=8)
        assert (run.plan.strategy, run.plan.batch_size, run.plan.optimizer) == (LocalSGD(2), 8, SGD(0.25))
        assert run.label == "AllReduce()"  # as the run is called


def test_after_a_switch_of_roles_the_plan_is_that_of_the_new_ranks(threads: Client, problem: Problem) -> None:
    with running(**problem.endless(client=threads)) as run:
        run.update(strategy=ParameterServer("async"), learning_rate=0.25)
        assert run.plan.strategy == ParameterServer("async")
        assert run.plan.layout == Layout(2, servers=1)
        assert run.plan.optimizer == SGD(0.25)
        assert run._driver.placement.layout == run.plan.layout
        run.update(batch_size=8)
        run.update(strategy=AllReduce())
        assert run.plan.layout == Layout(2)
        assert (run.plan.strategy, run.plan.batch_size, run.plan.optimizer) == (AllReduce(), 8, SGD(0.25))
        run.stop()
    assert run.model.predict(problem.X).shape == (len(problem.X),)


def test_the_baseline_is_one_as_long_as_it_is(threads: Client, problem: Problem) -> None:
    with running(**problem.endless(client=threads, strategy=Serial(), workers=1)) as run:
        assert run.is_serial
        run.update(strategy=AllReduce())
        assert not run.is_serial
        assert run.workers == 1


def test_a_switch_that_cannot_be_changes_nothing(threads: Client, problem: Problem) -> None:
    with running(**problem.endless(client=threads)) as run:
        run.pause()
        with pytest.raises(ValueError, match=r"other ranks take over under ParameterServer.* resume\(\) before that"):
            run.update(strategy=ParameterServer(), learning_rate=0.1)
        assert (run.plan.optimizer, run.plan.strategy) == (SGD(RATE), AllReduce())
        run.resume()
        run.update(learning_rate=0.1)
        assert run.plan.optimizer == SGD(0.1)


def test_no_command_is_left_out_after_a_refused_one(threads: Client, problem: Problem) -> None:
    with running(**problem.endless(client=threads)) as run:
        for bad in ({"learning_rate": 0}, {"batch_size": True}, {"batch_size": 2.5}):
            with pytest.raises(ValueError, match="must be a positive"):
                run.update(**bad)
        run.update()
        run.update(batch_size=16)
        assert run._driver.applied_at(1).keys() == {0, 1}
