"""Workers are killed and stopped at random, under every strategy: a seed's draws, ten of them quick enough for each day."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

import pytest
from distributed import Client

from chaos.arena import Arena
from chaos.draws import Draw, draws, quick, shrinking
from cluster.shell import Shell
from embedded import embedded

SEED = int(os.environ.get("CHAOS_SEED", "15"))
RUNS = int(os.environ.get("CHAOS_RUNS", "100"))
WORKERS = 4
DAILY = quick(SEED, 10)
FEWER = list(islice(shrinking(SEED + 2), RUNS // 4))
REST = [draw for draw in islice(draws(SEED), RUNS) if draw not in DAILY]

pytestmark = pytest.mark.timeout(300)


def named(draw: Draw) -> str:
    return f"seed {SEED}, {draw}"


@pytest.fixture(scope="module")
def arena() -> Arena:
    return Arena(embedded(WORKERS), WORKERS)


@pytest.mark.parametrize("draw", DAILY, ids=named)
def test_a_run_comes_out_of_it(arena: Arena, draw: Draw) -> None:
    arena.play(draw)


@pytest.mark.chaos
@pytest.mark.parametrize("draw", REST, ids=named)
def test_every_other_run_comes_out_of_it(arena: Arena, draw: Draw) -> None:
    arena.play(draw)


@pytest.mark.chaos
@pytest.mark.parametrize("draw", FEWER, ids=lambda draw: f"seed {SEED + 2}, {draw}")
def test_who_is_left_comes_out_of_it(arena: Arena, draw: Draw) -> None:
    arena.play(draw)


@pytest.fixture(scope="module")
def shell_arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """A scheduler and workers as a shell starts them, each with its nanny."""
    with (
        Shell(tmp_path_factory.mktemp("shell")) as shell,
        Client(
            scheduler_file=str(shell.cluster({f"worker-{i}": [] for i in range(WORKERS)})[0]), set_as_default=False
        ) as client,
    ):
        yield Arena(client, WORKERS)


@pytest.mark.chaos
@pytest.mark.parametrize("draw", quick(SEED + 1, 10), ids=lambda draw: f"seed {SEED + 1}, {draw}")
def test_on_workers_of_the_command_line(shell_arena: Arena, draw: Draw) -> None:
    shell_arena.play(draw)
