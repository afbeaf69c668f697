"""A program's communicator against NumPy: every operation on every kind of array, number and tensor, in place and back."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from scaleml.comm import Mismatch, inprocess
from scaleml.frameworks.rank_communicator import RankCommunicator

RANKS = 3
KINDS = [
    "float32", "float64", "float16", "complex64", "complex128", ">f8",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
]  # fmt: skip


def on_ranks(program: Any, size: int = RANKS) -> list[Any]:
    return inprocess.run(size, lambda links: program(RankCommunicator(links)))


def numbers(rank: int, dtype: str) -> np.ndarray[Any, Any]:
    values = (np.arange(12).reshape(3, 4) * (rank + 1) % 7).astype(dtype)
    return values + np.array(1j, values.dtype) * rank if values.dtype.kind == "c" else values


@pytest.mark.parametrize("dtype", KINDS)
def test_sums_means_and_extremes_are_those_of_numpy_in_place(dtype: str) -> None:
    kind = np.dtype(dtype).kind
    ops = {"sum": np.sum}
    ops |= {"mean": np.mean} if kind in "fc" else {}
    ops |= {"min": np.min, "max": np.max} if kind != "c" else {}
    everyone = np.stack([numbers(rank, dtype) for rank in range(RANKS)])

    def program(ranks: RankCommunicator) -> None:
        for op, numpys in ops.items():
            x = numbers(ranks.rank, dtype)
            assert ranks.allreduce(x, op) is x
            assert x.dtype == np.dtype(dtype)
            np.testing.assert_allclose(x, numpys(everyone, axis=0), rtol=1e-3 if dtype == "float16" else 1e-6)

    on_ranks(program)


def test_what_is_no_contiguous_vector_is_changed_in_its_place_too() -> None:
    def program(ranks: RankCommunicator) -> None:
        whole = np.zeros((4, 6))
        part = whole[::2, 1:5:2]
        part[...] = ranks.rank
        ranks.allreduce(part)
        assert (whole[::2, 1:5:2] == 3).all()
        assert whole.sum() == 3 * 4
        scalar = np.array(1.5)
        ranks.allreduce(scalar)
        assert scalar == 4.5
        empty = np.zeros((0, 3))
        assert ranks.allreduce(empty, "max") is empty

    on_ranks(program)


def test_numbers_come_back_as_numbers() -> None:
    def program(ranks: RankCommunicator) -> Any:
        return (
            ranks.allreduce(ranks.rank), ranks.allreduce(0.5 * ranks.rank, "mean"), ranks.allreduce(ranks.rank == 1, "max"),
            ranks.broadcast(10 + ranks.rank, root=2), ranks.allgather(2 * ranks.rank), ranks.allreduce(np.float32(1)),
        )  # fmt: skip

    assert on_ranks(program) == [(3, 0.5, True, 12, [0, 2, 4], 3.0)] * RANKS


def test_broadcast_and_allgather_take_any_dtype_and_shape() -> None:
    def program(ranks: RankCommunicator) -> None:
        state = {"a": np.full((2, 2), ranks.rank, "int8"), "b": [np.array([ranks.rank == 1]), float(ranks.rank)]}
        got = ranks.broadcast(state, root=1)
        assert got["a"] is state["a"]
        assert (state["a"] == 1).all()
        assert got["b"][0].item() is True
        assert got["b"][1] == 1.0
        ragged = ranks.allgather(np.full((ranks.rank, 2), ranks.rank, "float16"))
        assert [(part.shape, part.dtype) for part in ragged] == [((n, 2), np.dtype("float16")) for n in range(RANKS)]
        assert all((part == n).all() for n, part in enumerate(ragged))
        alike = ranks.allgather(np.full((2, 1), ranks.rank))
        np.testing.assert_array_equal(np.concatenate(alike)[:, 0], [0, 0, 1, 1, 2, 2])

    on_ranks(program)


def test_messages_and_parts() -> None:
    def program(ranks: RankCommunicator) -> Any:
        ranks.send(np.full((2, 2), ranks.rank), (ranks.rank + 1) % RANKS, tag=7)
        got = ranks.recv(np.empty((2, 2), int), (ranks.rank - 1) % RANKS, tag=7)
        part = ranks.split(0 if ranks.rank < 2 else None)
        ranks.barrier()
        return got[1, 1], part and part.allreduce(1)

    assert on_ranks(program) == [(2, 2), (0, 2), (1, None)]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda ranks: ranks.allreduce(np.ones(2, bool)), ValueError, "op='max' for any"),
        (lambda ranks: ranks.allreduce(np.ones(2, int), "mean"), ValueError, "make it a float"),
        (lambda ranks: ranks.allreduce(np.full(2, 100, "int8")), OverflowError, "no room in int8"),
        (lambda ranks: ranks.allreduce(np.ones(2), "product"), ValueError, "op='product'"),
        (lambda ranks: ranks.allreduce(np.broadcast_to(1.0, 3)), ValueError, "read-only"),
        (lambda ranks: ranks.allreduce("text"), TypeError, "str cannot travel"),
        (lambda ranks: ranks.allreduce(np.array([None])), TypeError, "Python objects"),
        (lambda ranks: ranks.broadcast({ranks.rank: 1}), ValueError, "different things"),
        (lambda ranks: ranks.allgather(np.ones(1, "f4" if ranks.rank else "f8")), ValueError, "one dtype"),
        (lambda ranks: ranks.allreduce(np.ones(2 + ranks.rank)), Mismatch, "all ranks must call the same"),
    ],
)
def test_mistakes_are_told_on_every_rank(call: Any, error: type[Exception], words: str) -> None:
    def program(ranks: RankCommunicator) -> None:
        with pytest.raises(error, match=words):
            call(ranks)

    on_ranks(program)


def test_another_thread_cannot_use_it() -> None:
    def program(ranks: RankCommunicator) -> None:
        found: list[Exception] = []

        def use() -> None:
            try:
                ranks.barrier()
            except RuntimeError as error:
                found.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert "in its own thread only" in str(found[0])

    on_ranks(program, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16", "int64", "complex64"])
def test_tensors_are_changed_in_place(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    kind = getattr(torch, dtype)

    def program(ranks: RankCommunicator) -> None:
        x = (torch.arange(6).reshape(2, 3) * (ranks.rank + 1)).to(kind)
        expected = (torch.arange(6).reshape(2, 3) * 6).to(kind)
        assert ranks.allreduce(x) is x
        assert torch.equal(x, expected)
        turned = torch.full((2, 3), ranks.rank + 1).to(kind).T
        ranks.broadcast(turned, root=1)
        assert torch.equal(turned, torch.full((3, 2), 2).to(kind))
        parts = ranks.allgather(torch.full((ranks.rank + 1,), ranks.rank).to(kind))
        assert torch.equal(torch.cat(parts), torch.tensor([0, 1, 1, 2, 2, 2]).to(kind))
        if not kind.is_complex:
            most = torch.tensor([-1.0, ranks.rank]).to(kind)
            assert torch.equal(ranks.allreduce(most, "max"), torch.tensor([-1.0, 2.0]).to(kind))

    on_ranks(program)


def test_half_precision_is_rounded_once() -> None:
    torch = pytest.importorskip("torch")
    given = [torch.randn(1000, generator=torch.Generator().manual_seed(rank)).bfloat16() for rank in range(RANKS)]
    given[0][:2] = torch.tensor([float("nan"), float("inf")])

    def program(ranks: RankCommunicator) -> None:
        x = given[ranks.rank].clone()
        ranks.allreduce(x)
        expected = (given[0].float() + given[1].float() + given[2].float()).bfloat16()
        assert torch.equal(x.nan_to_num(1234.0), expected.nan_to_num(1234.0))

    on_ranks(program)


def test_a_module_s_state_is_everybody_s() -> None:
    torch = pytest.importorskip("torch")

    def program(ranks: RankCommunicator) -> None:
        module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
        for tensor in module.state_dict().values():
            tensor.fill_(ranks.rank)
        ranks.broadcast(module.state_dict(), root=2)
        assert {tensor.sum().item() / tensor.numel() for tensor in module.state_dict().values()} == {2.0}

    on_ranks(program)
    with pytest.raises(TypeError, match="to_dense"):
        inprocess.run(1, lambda links: RankCommunicator(links).allreduce(torch.eye(2).to_sparse()))
