"""A small residual network of PyTorch on images of CIFAR's shape: one rank against a loop by hand, two ranks against DDP on gloo.

All train the same module from the same weights on the same rows in the same order, 64 rows a rank and step, with one thread a process,
SGD with momentum, and the loss read in every step, as tutorials do. The two that never talk are what two processes of this machine reach at
most. All take turns, each peer in fresh processes; the first epoch of each is not timed. How far the parameters of one rank and of the loop
by hand are apart is in the row: then it is the same mathematics.
"""

import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from . import ours
from .pairs import Pipe, answer_requests, dial, pair
from .problems import SEED, Problem
from .report import Row, alone, compare, missing

PROBLEM = Problem(features=3 * 32 * 32, hidden=0, classes=10, rows=1_280, batch=64, epochs=3, rate=0.001)
WIDTH, MOMENTUM = 8, 0.9
ONE, TWO = "a step of a residual network, CIFAR's shape, batch 64", "the same network on two ranks, 64 rows a rank"


def data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (rows, 3, 32, 32) and their labels (rows,), the same at every call."""
    random = np.random.default_rng(SEED)
    x = random.standard_normal((rows, 3, 32, 32), dtype=np.float32)
    return x, random.integers(0, 10, rows)


def module() -> Any:
    """Return the network, with the same weights at every call."""
    from scaleml.frameworks.residual_network import ResidualNetwork
    from scaleml.models import Signature

    row = np.dtype(("float32", (3, 32, 32)))
    network: Any = ResidualNetwork(WIDTH, norm="batch").build(Signature(PROBLEM.features, 10, "multiclass", row=row))
    return network.module(network.init(SEED)).train()


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds."""
    from scaleml import AllReduce, Serial

    by_hand, ddp, apart = "the PyTorch loop by hand", "PyTorch DDP on gloo", "two processes that never talk"
    if find_spec("torch") is None:
        return [missing(ONE, by_hand, 1.03, "pip install torch"), missing(TWO, ddp, 1.05, "pip install torch")]
    steps = PROBLEM.timed_rows / PROBLEM.batch
    times: dict[str, list[float]] = {name: [] for name in ("one", "hand", "two", "ddp", "apart")}
    furthest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            run = _train(Serial(threads=1), 1)
            times["one"].append(1e6 * ours.timed_seconds(run, PROBLEM.epochs) / steps)
            seconds, params = _peers("hand", 1, Path(folder))
            times["hand"].append(1e6 * seconds / steps)
            furthest = max(furthest, float(np.abs(run.params - params).max() / np.abs(params).max()))
            times["two"].append(2 * PROBLEM.timed_rows / ours.timed_seconds(_train(AllReduce(), 2), PROBLEM.epochs))
            for name in ("ddp", "apart") if number % 2 else ("apart", "ddp"):
                times[name].append(2 * PROBLEM.timed_rows / _peers(name, 2, Path(folder))[0])
    note = f"parameters apart by {furthest:.0e} of the largest"
    return [
        compare(ONE, by_hand, times["one"], times["hand"], "us", 1.03, sense="at most", note=note),
        compare(TWO, ddp, times["two"], times["ddp"], "samples/s", 1.05),
        compare(TWO, apart, times["two"], times["apart"], "samples/s", 0.95),
    ]


def _train(strategy: Any, workers: int) -> Any:
    import scaleml

    x, y = data(PROBLEM.rows * workers)
    return scaleml.train(
        scaleml.TorchModel(module(), "cross_entropy"), x, y, strategy=strategy, optimizer=scaleml.SGD(PROBLEM.rate, momentum=MOMENTUM),
        epochs=PROBLEM.epochs, batch_size=PROBLEM.batch * workers, workers=workers, seed=SEED, progress=False,
    )  # fmt: skip


def _peers(kind: str, ranks: int, folder: Path) -> tuple[float, np.ndarray]:
    """Return the seconds of the slower of so many processes, and the parameters of the first."""
    with pair("benchmarks.torch_loop", kind, ranks=ranks) as processes:
        answers = processes.ask({"ranks": ranks, "params": str(folder / "params.npy")})
    return max(float(answer["seconds"]) for answer in answers), np.load(folder / "params.npy")


class _Loop:
    """One process that trains by hand; of ``"ddp"`` one of two whose gradients gloo sums."""

    def __init__(self, kind: str, rank: int, pipe: Pipe, store: str) -> None:
        self.kind, self.rank, self.pipe, self.store = kind, rank, pipe, store

    def __call__(self, message: Any) -> dict[str, float]:
        """Train, and return the seconds of the timed epochs."""
        import torch
        from torch.nn.functional import cross_entropy

        torch.set_num_threads(1)
        own: Any = module()
        x, y = (torch.from_numpy(part[self._rows(message["ranks"])]) for part in data(PROBLEM.rows * message["ranks"]))
        if self.kind == "ddp":
            from torch.distributed import init_process_group
            from torch.nn.parallel import DistributedDataParallel

            init_process_group("gloo", init_method=f"file://{self.store}", rank=self.rank, world_size=message["ranks"])
            model: Any = DistributedDataParallel(own)
        else:
            model = own
        rule = torch.optim.SGD(own.parameters(), lr=PROBLEM.rate, momentum=MOMENTUM)
        begun, total = 0.0, 0.0
        for epoch in range(PROBLEM.epochs):
            if epoch == 1:
                begun = time.perf_counter()
            for at in range(0, len(x), PROBLEM.batch):
                rule.zero_grad()
                loss = cross_entropy(model(x[at : at + PROBLEM.batch]), y[at : at + PROBLEM.batch])
                loss.backward()
                rule.step()
                total += loss.item()
        seconds = time.perf_counter() - begun
        if self.rank == 0:
            np.save(message["params"], np.concatenate([one.detach().numpy().ravel() for one in own.parameters()]))
        if self.kind == "ddp":
            torch.distributed.destroy_process_group()
        return {"seconds": seconds, "loss": total}

    def _rows(self, ranks: int) -> np.ndarray:
        from dataclasses import replace

        return ours.orders(replace(PROBLEM, rows=PROBLEM.rows * ranks), ranks)[self.rank]


def _main() -> None:
    kind, rank = sys.argv[1], int(sys.argv[2])
    pipe = dial()
    pipe.send({"rank": rank})
    answer_requests(pipe, _Loop(kind, rank, pipe, f"{sys.argv[-1]}.store"))


if __name__ == "__main__":
    if sys.argv[1:2] in (["hand"], ["ddp"], ["apart"]):
        _main()
    else:
        alone(measure, __doc__)
