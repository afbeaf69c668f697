"""Averaged gradients: N ranks take the steps of one process on all their rows, with every kind of optimizer."""

from __future__ import annotations

from typing import Any

import pytest

from scaleml.comm import inprocess
from scaleml.frameworks.distributed_optimizer import DistributedOptimizer, average_gradients
from scaleml.frameworks.rank_communicator import RankCommunicator

torch = pytest.importorskip("torch")

ROWS, RANKS = 12, 2
X = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(1)).double()
Y = torch.randint(0, 3, (ROWS,), generator=torch.Generator().manual_seed(2))

OPTIMIZERS = {
    "SGD": lambda those: torch.optim.SGD(those, lr=0.5, momentum=0.9, nesterov=True),
    "AdamW": lambda those: torch.optim.AdamW([{"params": those[:2], "weight_decay": 0.0}, {"params": those[2:]}], lr=0.1),
    "LBFGS": lambda those: torch.optim.LBFGS(those, lr=0.5, max_iter=3, line_search_fn="strong_wolfe"),
}  # fmt: skip


def network(seed: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()


def trained(module: Any, optimizer: Any, x: Any, y: Any) -> list[float]:
    """Four epochs of one batch, with a schedule, and a closure where the optimizer wants one."""
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(x), y)
        loss.backward()
        return loss

    losses = []
    for _ in range(4):
        if isinstance(optimizer, torch.optim.LBFGS):
            losses.append(optimizer.step(closure).item())
        else:
            losses.append(closure().item())
            optimizer.step()
        schedule.step()
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ranks_step_as_one_process_on_all_rows(name: str) -> None:
    alone = network(0)
    losses = trained(alone, OPTIMIZERS[name](list(alone.parameters())), X, Y)

    started = [network(rank) for rank in range(RANKS)]  # different: all are given that of rank 0

    def program(links: Any) -> Any:
        ranks = RankCommunicator(links)
        mine = started[ranks.rank]
        optimizer = OPTIMIZERS[name](list(mine.parameters()))
        assert DistributedOptimizer(optimizer, communicator=ranks) is optimizer
        half = slice(ranks.rank * ROWS // RANKS, (ranks.rank + 1) * ROWS // RANKS)
        return trained(mine, optimizer, X[half], Y[half]), mine

    (first, module), (second, other) = inprocess.run(RANKS, program)
    for mine, theirs, expected in zip(module.parameters(), other.parameters(), alone.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)
    mean = first if name == "LBFGS" else [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    assert mean == pytest.approx(losses, rel=1e-9)


def test_parameters_without_a_gradient_on_some_ranks_or_all() -> None:
    def program(links: Any) -> None:
        ranks = RankCommunicator(links)
        both, one, none, half = (torch.nn.Parameter(torch.zeros(2)) for _ in range(4))
        half.data = half.data.bfloat16()
        both.grad = torch.full((2,), 1.0 + ranks.rank)
        half.grad = torch.full((2,), 3.0 * ranks.rank).bfloat16()
        if ranks.rank == 1:
            one.grad = torch.full((2,), 4.0)
        average_gradients([both, one, none, half], ranks)
        assert none.grad is None
        assert [parameter.grad.tolist() for parameter in (both, one, half)] == [[1.5, 1.5], [2.0, 2.0], [1.5, 1.5]]

    inprocess.run(RANKS, program)


def test_what_cannot_be_averaged_is_refused() -> None:
    def program(links: Any) -> None:
        ranks = RankCommunicator(links)
        table = torch.nn.Embedding(3, 2, sparse=True)
        optimizer = DistributedOptimizer(torch.optim.SGD(table.parameters(), lr=0.1), communicator=ranks)
        with pytest.raises(ValueError, match="wrap it once"):
            DistributedOptimizer(optimizer, communicator=ranks)
        table(torch.tensor([1])).sum().backward()
        with pytest.raises(ValueError, match="sparse=False"):
            optimizer.step()

    inprocess.run(1, program)


def test_outside_of_a_program_there_are_no_ranks() -> None:
    with pytest.raises(RuntimeError, match=r"in a function that scaleml\.spmd runs"):
        DistributedOptimizer(torch.optim.SGD(network(0).parameters(), lr=0.1))
