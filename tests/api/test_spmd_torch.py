"""Scripts for torchrun, as they are, through spmd: DDP, sharded data parallelism and pipelining equal one process's loop."""

from __future__ import annotations

from typing import Any

import dask
import pytest

import leaks as guards
import scaleml
from embedded import embedded

torch = pytest.importorskip("torch")

RANKS, ROWS, STEPS, RATE = 2, 8, 3, 0.2


def batch() -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(ROWS, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (ROWS,), generator=generator)


def network() -> Any:
    torch.manual_seed(5)
    first, last = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)
    return torch.nn.Sequential(first, torch.nn.Tanh(), last).double()


def by_hand() -> dict[str, Any]:
    module, (x, y) = network(), batch()
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    return dict(module.state_dict())


def ddp_script() -> dict[str, Any]:
    """A script that would run under torchrun: it finds the environment, and starts and ends the group."""
    import os

    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

    dist.init_process_group("gloo")
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    assert (rank, size, dist.get_rank()) == (scaleml.rank(), scaleml.size(), scaleml.rank())
    assert os.environ["LOCAL_RANK"] == str(rank)
    module = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9)
    rows = TensorDataset(*batch())
    loader = DataLoader(rows, ROWS // size, sampler=DistributedSampler(rows, shuffle=False))
    for _ in range(STEPS):
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x), y).backward()
            optimizer.step()
    print("trained")
    state = module.module.state_dict()
    dist.destroy_process_group()
    return dict(state)


def sharded_script() -> dict[str, Any]:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    module, rank, size = network(), dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh("cpu", (size,))
    fully_shard(module[0], mesh=mesh)
    fully_shard(module, mesh=mesh)
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9)
    x, y = (part.chunk(size)[rank] for part in batch())
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    return {name: tensor.full_tensor() for name, tensor in module.state_dict().items()}


def wrapped_script() -> dict[str, Any]:
    """The class, which wants a GPU unless it is told the device."""
    import torch.distributed as dist
    from torch.distributed.fsdp import FullyShardedDataParallel

    rank, size = dist.get_rank(), dist.get_world_size()
    module = FullyShardedDataParallel(network(), device_id=torch.device("cpu"))
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9)
    x, y = (part.chunk(size)[rank] for part in batch())
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    whole = sum(one.numel() for one in network().parameters())
    assert sum(one.numel() for one in module.parameters()) <= whole // size + 1
    with FullyShardedDataParallel.summon_full_params(module):
        return {name: tensor.clone() for name, tensor in module.module.state_dict().items()}


def pipelined_script() -> dict[str, Any]:
    import torch.distributed as dist
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B

    rank, size = dist.get_rank(), dist.get_world_size()
    whole = network()
    module = whole[:1] if rank == 0 else whole[1:]
    stage = PipelineStage(module, rank, size, torch.device("cpu"))
    schedule = Schedule1F1B(stage, n_microbatches=2, loss_fn=torch.nn.functional.cross_entropy)
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9)
    x, y = batch()
    for _ in range(STEPS):
        optimizer.zero_grad()
        schedule.step(x) if rank == 0 else schedule.step(target=y)
        optimizer.step()
    return dict(whole.state_dict())


def test_scripts_equal_one_process_and_leave_nothing() -> None:
    client = embedded(RANKS)
    ddp = scaleml.spmd(ddp_script, workers=RANKS, backend="torchrun")
    before = client.run(_held)  # after the imports; PyTorch keeps the group of the newest DDP until the next
    again = scaleml.spmd(ddp_script, workers=RANKS, backend="gloo")
    left = guards.settle(lambda: _left(client, before), 5)
    assert not left, left
    sharded = scaleml.spmd(sharded_script, workers=RANKS, backend="gloo")
    wrapped = scaleml.spmd(wrapped_script, workers=RANKS, backend="gloo")
    first, last = scaleml.spmd(pipelined_script, workers=RANKS, backend="gloo")
    pipelined = [{name: (first if name.startswith("0") else last)[name] for name in first}]
    expected = by_hand()
    for results in (ddp, again, sharded, wrapped, pipelined):
        for state in results:
            torch.testing.assert_close(state, expected, rtol=1e-9, atol=1e-9)


def _held() -> tuple[int, frozenset[str], bool]:
    """How many ports a worker listens on, its threads, and whether anything of a group is left."""
    import os

    import torch.distributed as dist

    from scaleml.comm.foreign_connections import listening_ports

    return len(listening_ports()), guards.look(False).threads, dist.is_initialized() or "MASTER_ADDR" in os.environ


def _left(client: Any, before: dict[str, Any]) -> dict[str, Any]:
    now = client.run(_held)
    assert not any(found[2] for found in now.values())
    return {
        address: (found, before[address])
        for address, found in now.items()
        if found[0] > before[address][0] or found[1] - before[address][1]
    }


def test_who_waits_in_a_backend_s_collective_hears_of_a_failure() -> None:
    import torch.distributed as dist

    def fails() -> None:
        dist.barrier()
        if scaleml.rank() == 1:
            raise ValueError("the cause")
        dist.all_reduce(torch.ones(3))

    def returns() -> None:
        if scaleml.rank() == 0:
            dist.all_reduce(torch.ones(3))

    embedded(RANKS)
    with pytest.raises(scaleml.RunFailed, match=r"rank 1 on worker .* failed: ValueError: the cause"):
        scaleml.spmd(fails, workers=RANKS, backend="gloo")
    early = pytest.raises(scaleml.RunFailed, match=r"rank 1 on worker .* failed: its function had returned while")
    with dask.config.set({"scaleml.comm.timeout": "0.5s"}), early:
        scaleml.spmd(returns, workers=RANKS, backend="gloo")
    with pytest.raises(scaleml.RunFailed, match=r"init_process_group\('nccl'\), but spmd\(backend='gloo'\)"):
        scaleml.spmd(lambda: dist.init_process_group("nccl"), workers=RANKS, backend="gloo")
