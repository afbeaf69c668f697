"""On a GPU: a linear model's epoch against the memory's bandwidth, a residual network against PyTorch by hand, two ranks on one GPU.

Where there is none it says so in one line, and nothing is measured. The bandwidth is that of copying 1 GB within the GPU's memory, both
ways counted; an epoch of a linear model cannot take less than to read the rows twice, for scores and for the gradient. Both sides
of a row take turns.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from .report import Row, alone, compare

ROWS, COLUMNS, BATCH, EPOCHS = 1_000_000, 1024, 65_536, 6
IMAGES, CHANNELS, IMAGE_BATCH = 4096, 64, 64
GIGABYTE: Final = 1 << 30


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds."""
    from scaleml.devices import visible_gpus

    found = visible_gpus()
    if not found["gpus"]:
        return [Row("on a GPU", "", None, None, "", None, note=f"no GPU: {found['error']}")]
    _, name = found["gpus"][0]
    return [_linear(rounds, name), _two_ranks(rounds, name), _residual(rounds, name)]


def _linear(rounds: int, name: str) -> Row:
    """Compare bytes a second: of an epoch's two readings of X, and of a copy."""
    from scaleml import SGD, LinearModel, Serial

    x, y = _table()
    mine, theirs = [], []
    for _ in range(rounds):
        seconds = _epoch_seconds(LinearModel(), x, y, Serial(), SGD(0.1), 1, BATCH)
        mine.append(2 * x.nbytes / seconds / 1e9)
        theirs.append(_bandwidth())
    what = f"{name}: an epoch of LinearModel, {ROWS:,} x {COLUMNS}, batch {BATCH:,}"
    return compare(what, "a copy in its memory", mine, theirs, "GB/s", 0.8)


def _two_ranks(rounds: int, name: str) -> Row:
    """Compare rows a second of two ranks that share a GPU with those of one."""
    from scaleml import MLP, SGD, AllReduce, Serial

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60_000, 784), np.float32), rng.integers(0, 10, 60_000)
    model, found = MLP((1024, 1024)), []
    for _ in range(rounds):
        pair = [
            _epoch_seconds(model, x, y, strategy, SGD(0.05), workers, 1024)
            for strategy, workers in ((AllReduce(), 2), (Serial(), 1))
        ]
        found.append([len(x) / seconds for seconds in pair])
    mine, theirs = np.array(found).T
    return compare(f"{name}: two ranks on it, MLP 784-1024-1024-10", "one rank", list(mine), list(theirs), "samples/s")


def _residual(rounds: int, name: str) -> Row:
    """Compare milliseconds a step of a small residual network with those of the same loop by hand."""
    what = f"{name}: a step of a residual network, 3 x 32 x 32, batch {IMAGE_BATCH}"
    if find_spec("torch") is None:
        return Row(what, "PyTorch by hand", None, None, "ms", None, note="pip install torch")
    import torch

    if not torch.cuda.is_available():
        return Row(what, "PyTorch by hand", None, None, "ms", None, note="this PyTorch sees no GPU")

    from scaleml import SGD, Serial, TorchModel

    torch.manual_seed(0)
    model = TorchModel(_network(torch.nn), loss="cross_entropy")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((IMAGES, 3, 32, 32), np.float32), rng.integers(0, 10, IMAGES)
    steps = IMAGES / IMAGE_BATCH
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(1e3 * _epoch_seconds(model, x, y, Serial(), SGD(0.01, momentum=0.9), 1, IMAGE_BATCH) / steps)
        theirs.append(1e3 * _by_hand(torch, x, y) / steps)
    return compare(what, "PyTorch by hand", mine, theirs, "ms", 1.03, sense="at most")


def _table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, COLUMNS), np.float32)
    return x, (x[:, :8].sum(axis=1) > 0).astype(np.int64)


def _epoch_seconds(model: Any, x: Any, y: Any, strategy: Any, optimizer: Any, workers: int, batch: int) -> float:
    """Return the seconds of an epoch, the first left out: the GPU compiles its kernels in it."""
    import scaleml

    run = scaleml.train(
        *(model, x, y),
        strategy=strategy,
        optimizer=optimizer,
        workers=workers,
        batch_size=batch,
        epochs=EPOCHS,
        device="cuda",
    )
    from .ours import timed_seconds

    return timed_seconds(run, EPOCHS) / (EPOCHS - 1)


def _bandwidth() -> float:
    """Return the GB/s of a copy in the memory of the first GPU, read and written bytes together."""
    from scaleml.arrays import gpu_library

    xp = gpu_library()
    source, target = (xp.zeros(GIGABYTE // 4, np.float32) for _ in range(2))
    begin, end = xp.cuda.Event(), xp.cuda.Event()
    target[...] = source
    begin.record()
    for _ in range(10):
        target[...] = source
    end.record()
    end.synchronize()
    return float(10 * 2 * GIGABYTE / xp.cuda.get_elapsed_time(begin, end) / 1e6)


def _network(nn: Any) -> Any:
    """Return a residual network of six convolutions, 10 classes."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
            )

        def forward(self, x: Any) -> Any:
            return (x + self.body(x)).relu()

    stem = [nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU()]
    return nn.Sequential(
        *stem, Residual(), nn.MaxPool2d(2), Residual(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10)
    )


def _by_hand(torch: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Return the seconds of an epoch of the same steps, all rows on the GPU, after one that is not timed."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    module = _network(torch.nn).to(device)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    loss = torch.nn.CrossEntropyLoss()
    rows, labels = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for epoch in range(2):
        if epoch:
            begin.record()
        for start in range(0, len(rows), IMAGE_BATCH):
            optimizer.zero_grad()
            loss(module(rows[start : start + IMAGE_BATCH]), labels[start : start + IMAGE_BATCH]).backward()
            optimizer.step()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end) / 1e3)


if __name__ == "__main__":
    alone(measure, __doc__)
