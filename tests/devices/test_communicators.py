"""Communicators of GPU arrays: staged through the host, and NCCL; each collective and message against its sum by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from scaleml.comm import inprocess
from scaleml.comm.nccl import join
from scaleml.comm.staged import StagedCommunicator
from scaleml.devices import Cuda, Gpu

RANKS, ITEMS = 3, 40_000


def run(kind: str, work: Callable[[Any, Cuda], Any], ranks: int = RANKS) -> list[Any]:
    """Call ``work(communicator, device)`` on each rank."""

    def main(links: Any) -> Any:
        device = Cuda(Gpu(links.rank))
        group: Any = StagedCommunicator(links, device)
        if kind == "nccl":
            group = join(group, device)
        try:
            return work(group, device)
        finally:
            if kind == "nccl":
                group.barrier()
                group.give_up()
            device.release()

    return inprocess.run(ranks, main)


@pytest.fixture(params=["staged", "nccl"])
def kind(request, cupy):
    return request.param


def mine(rank: int, items: int = ITEMS) -> np.ndarray:
    return np.random.default_rng(rank).integers(0, 1000, items).astype("f4")


TOTAL = sum(mine(rank) for rank in range(RANKS))


@pytest.mark.parametrize("where", ["buffer", "slice", "fresh"])
@pytest.mark.parametrize("background", [False, True])
def test_collectives(kind, where, background):
    def work(group, device):
        def there():
            values = device.put(mine(group.rank))
            if where == "fresh":
                return values
            x = group.buffer(ITEMS + 8)[8 if where == "slice" else 0 :][:ITEMS]
            x[:] = values
            return x

        def done(name, x):
            if background:
                return getattr(group, f"{name}_start")(x).wait()
            return getattr(group, name)(x)

        summed, part = there(), there()
        done("allreduce", summed)
        start, stop = group.part(group.rank, ITEMS)
        assert_array_equal(done("reduce_scatter", part).get(), TOTAL[start:stop])
        every = done("allgather", there())
        root, given = there(), there()
        group.reduce(root, 1)
        group.broadcast(given, 2)
        assert_array_equal(given.get(), mine(2))
        if group.rank == 1:
            assert_array_equal(root.get(), TOTAL)
        host = mine(group.rank)  # arrays of the processor's memory go as ever
        done("allreduce", host)
        return summed.get(), every.get(), host

    for summed, every, host in run(kind, work):
        assert_array_equal(summed, TOTAL)
        assert_array_equal(host, TOTAL)
        assert_array_equal(every, [mine(rank) for rank in range(RANKS)])


@pytest.mark.parametrize("items", [5, ITEMS])
def test_messages(kind, items):
    def work(group, device):
        box = group.buffer(items)
        box[:] = device.put(mine(group.rank, items))
        after, before = (group.rank + 1) % RANKS, (group.rank - 1) % RANKS
        pending = group.recv_start(before, tag=2, out=device.xp.zeros(items, np.float32))
        group.send(box, after, tag=1)
        sent = group.send_start(device.put(mine(group.rank, items) + 1), after, tag=2)
        message = group.recv(before, tag=1, view=True)
        assert type(message.array) is np.ndarray
        assert_array_equal(message.array, mine(before, items))
        group.send(b"seen", before, tag=3)
        assert group.recv(after, tag=3).payload == b"seen"
        sent.wait()
        assert_array_equal(pending.wait().payload.get(), mine(before, items) + 1)
        out = device.xp.zeros(items, np.float32)
        group.send(box, after, tag=4)
        assert group.recv(before, tag=4, out=out).payload is out
        assert_array_equal(out.get(), mine(before, items))
        group.send(b"seen", before, tag=3)
        group.recv(after, tag=3)
        blocks = [device.put(mine(group.rank, items)), device.xp.ones(items, np.float32)]
        group.send_receive([box, box], after, blocks, before, added=1)
        assert_array_equal(blocks[0].get(), mine(group.rank, items) + mine(before, items))
        assert_array_equal(blocks[1].get(), mine(before, items))

    run(kind, work)


def test_parts_of_it(kind):
    def work(group, device):
        ones = device.xp.ones(4, np.float32)
        half = group.split(group.rank % 2)
        half.allreduce(ones)
        some = ones.copy()
        if group.rank < 2:
            pair = group.subset([1, 0])
            assert group.subset([1, 0]) is pair
            pair.allreduce(some)
        assert group.shared_vector(3).shape == (3,)
        group.step, group.compute_seconds, group.control = 7, 0.5, 3
        stamps = group.stamps
        assert (stamps.step, stamps.compute_seconds, group.links.control) == (7, 0.5, 3)
        assert (group.step, group.compute_seconds, group.control) == (7, 0.5, 3)
        for each in (half, *([] if group.rank > 1 else [pair])):
            if kind == "nccl":
                each.barrier()
                each.give_up()
        return ones.get().tolist(), some.get().tolist()

    assert run(kind, work) == [([2.0] * 4, [3.0] * 4), ([1.0] * 4, [3.0] * 4), ([2.0] * 4, [2.0] * 4)]


def test_who_does_not_come_to_nccl_is_named(cupy, monkeypatch):
    def work(links):
        device = Cuda(Gpu(links.rank))
        if links.rank == 1:
            links.allgather_bytes(b"")
            raise RuntimeError("no driver here")
        join(StagedCommunicator(links, device), device)

    with pytest.raises(RuntimeError, match="no driver here"):
        inprocess.run(2, work)

    def refuse(*arguments):
        raise RuntimeError("NCCL_ERROR_INVALID_USAGE: two ranks on one device")

    monkeypatch.setattr(cupy.cuda.nccl, "NcclCommunicator", refuse)
    with pytest.raises(RuntimeError, match=r"cannot join NCCL with 2 ranks: .*two ranks on one device.*device='cpu'"):
        run("nccl", lambda group, device: None, ranks=2)
