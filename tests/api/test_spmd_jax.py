"""JAX's processes through spmd: one array over all ranks; a cell can be run again; a process that is taken says so."""

from __future__ import annotations

import pytest

import scaleml
from embedded import embedded

pytest.importorskip("jax")

RANKS = 2


def total(fails: bool = False) -> tuple[float, int, int]:
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    mesh = jax.make_mesh((jax.process_count(),), ("rows",))
    mine = np.full(2, scaleml.rank() + 1.0)
    x = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("rows")), mine)
    found = float(jax.jit(lambda x: (x * x).sum())(x))
    if fails and scaleml.rank() == 0:
        raise ValueError("the cause")
    return found, jax.process_index(), jax.process_count()


def test_arrays_over_all_ranks_again_and_again_until_the_devices_are_taken() -> None:
    client = embedded(RANKS)
    workers = set(client.scheduler_info()["workers"])
    expected = [(2 * 1.0 + 2 * 4.0, rank, RANKS) for rank in range(RANKS)]
    assert scaleml.spmd(total, workers=RANKS, backend="jax") == expected
    with pytest.raises(scaleml.RunFailed, match=r"rank 0 on worker .* failed: ValueError: the cause"):
        scaleml.spmd(total, True, workers=RANKS, backend="jax")
    assert scaleml.spmd(total, workers=RANKS, backend="jax") == expected
    assert scaleml.spmd(total, workers=RANKS) == [(2.0 * (rank + 1) ** 2, 0, 1) for rank in range(RANKS)]
    assert set(client.scheduler_info()["workers"]) == workers  # JAX has ended none of their processes
    with pytest.raises(scaleml.RunFailed, match="has used JAX before, on devices of its own"):
        scaleml.spmd(total, workers=RANKS, backend="jax")
