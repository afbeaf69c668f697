"""Workers that are told to go while a run trains: SIGTERM to the processes of a shell, retirement, a cluster that shrinks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from numpy.testing import assert_allclose

import scaleml
from cluster.conftest import LOCAL
from cluster.shell import Shell
from cluster.test_elastic import told
from runtime import harness
from scaleml.faults import Slow
from scaleml.optim import Adam
from scaleml.strategies import AllReduce, Gossip, Hogwild, ParameterServer, Strategy

pytestmark = pytest.mark.chaos
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((600, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
SETTINGS: dict[str, Any] = {"batch_size": 24, "validation": 0.2, "seed": 3, "shards": 3, "optimizer": Adam(0.01)}
EPOCHS = 40


def started(client: Client, strategy: Strategy, **more: Any) -> scaleml.Run:
    model = scaleml.MLP((4,), dtype="float64")
    return scaleml.start(model, X, Y, strategy=strategy, client=client, workers=3, **{**SETTINGS, **more})


def until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    return harness.await_condition(condition, seconds)


@contextmanager
def of_a_shell(folder: Path, *options: str) -> Iterator[tuple[Client, Callable[[str], None]]]:
    """Three workers of the command line, and what sends SIGTERM to the process that was started for one of them."""
    with Shell(folder) as shell:
        names = ("ann", "bob", "cem")
        file, _ = shell.cluster({name: list(options) for name in names})
        processes = dict(zip(names, shell._started[1:], strict=True))
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(3, timeout=60)

            def end(address: str) -> None:
                facts = client.scheduler_info(n_workers=-1)["workers"][address]
                processes[str(facts["name"])].terminate()

            yield client, end


@pytest.mark.parametrize(
    "strategy", [AllReduce(), ParameterServer("async"), Hogwild(), Gossip(asynchronous=True)], ids=repr
)
@pytest.mark.parametrize("options", [(), ("--no-nanny",)], ids=["nanny", "no nanny"])
def test_a_worker_of_the_command_line_hands_over_at_sigterm(
    tmp_path: Path, strategy: Strategy, options: tuple[str, ...]
) -> None:
    with of_a_shell(tmp_path, *options) as (client, end):
        run = started(client, strategy, epochs=10**6)
        assert until(lambda: len(run.history) > 3)
        address = run._driver.placement.addresses[1]  # no server is there
        end(address)
        assert until(lambda: address not in run._driver.placement.addresses and run.state == "running")
        assert told(run).endswith("workers=2")
        assert "lost" not in told(run)
        seen = len(run.history)
        assert until(lambda: len(run.history) > seen + 3)
        run.stop()
        assert run.state == "stopped"
        assert np.isfinite(run.params).all()
        assert until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 2), "its worker is gone"


@pytest.mark.parametrize("how", ["SIGTERM below a nanny", "retired", "scaled down"])
def test_the_result_is_that_of_the_undisturbed_run(how: str) -> None:
    """To rounding, where another number of ranks has gone on; whether by a hand-over or as from a loss."""
    with LocalCluster(n_workers=3, **LOCAL) as cluster, Client(cluster, set_as_default=False) as client:
        undisturbed = started(client, AllReduce(), epochs=EPOCHS).wait(60)
        run = started(client, AllReduce(), epochs=EPOCHS, faults=[Slow(1, 5)])
        assert until(lambda: len(run.history) > 3)
        address = run._driver.placement.addresses[1]
        if how == "retired":
            client.retire_workers([address])
        elif how == "scaled down":
            cluster.scale(2)
        else:
            os.kill(client.run(os.getpid, workers=[address])[address], signal.SIGTERM)
        run.wait(60)
        if how == "SIGTERM below a nanny":  # which starts it anew
            assert "rank 1 replaced" in told(run)
            assert run.workers == 3
        else:
            assert run.workers == 2
            assert "workers=2" in told(run) or "left out" in told(run)
        assert_allclose(run.params, undisturbed.params, rtol=1e-12, atol=1e-14)
