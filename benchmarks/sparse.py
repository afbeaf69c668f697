"""Hashed text (2^18 columns, CSR): `AllReduce()` of what a batch touches against the same of whole vectors, two ranks of one host.

The text is film reviews' sentences where SCALEML_DATA has them, 17 words a row, else rows made as unevenly. Both train the same model
to the same parameters and take turns. A step is measured in shared memory, where nothing is faster than whole vectors, and on links of
1 Gbit/s, where each rank sends no faster (`faults.Bandwidth`). Bytes are those that a rank sends in a step. The first epoch of each
is not timed.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from . import ours
from .report import Row, alone, compare

COLUMNS: Final = 2**18
BATCHES: Final = (64, 256, 1024)
EPOCHS: Final = {64: 4, 256: 9, 1024: 25}
GIGABIT: Final = 125e6
PLACES: Final = {"in shared memory": (), "at 1 Gbit/s": (0, 1)}
"""Where, and whose links are limited."""


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds."""
    from distributed import Client, LocalCluster

    x, y = data()
    rows = []
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for batch in BATCHES:
            for place, limited in PLACES.items():
                found = [
                    [step(client, x, y, batch, limited, sparse) for sparse in (True, False)] for _ in range(rounds)
                ]
                times, sent = np.moveaxis(np.array(found), 2, 0)
                what = f"hashed text, 2 ranks, batches of {batch}"
                target = 10 if batch == min(BATCHES) else None
                mine, whole = (list(1e6 * times[:, side]) for side in (0, 1))
                rows.append(
                    compare(f"{what}, {place}: a step", "whole vectors", mine, whole, "us", target, inverse=True)
                )
            mine, whole = (list(sent[:, side]) for side in (0, 1))
            rows.append(compare(f"{what}: sent in a step", "whole vectors", mine, whole, "bytes", 10, inverse=True))
    return rows


def data() -> tuple[Any, np.ndarray]:
    """Return X (CSR) and y."""
    from scaleml import datasets

    try:
        text = datasets.load("polarity")
    except FileNotFoundError:
        return made(10_000)
    return text.X, text.y


def made(rows: int, words: int = 17) -> tuple[Any, np.ndarray]:
    """Return rows with so many words each, as unevenly as a language has them, hashed; and classes that they tell."""
    from scipy.sparse import csr_matrix

    random = np.random.default_rng(0)
    word = np.minimum(random.zipf(1.2, rows * words), 10**6)
    column = (word * 2_654_435_761 % 2**32 % COLUMNS).astype(np.int32)
    x = csr_matrix(
        (np.full(rows * words, words**-0.5, np.float32), column, np.arange(rows + 1) * words), (rows, COLUMNS)
    )
    x.sum_duplicates()
    scores = x @ random.standard_normal(COLUMNS)
    return x, (scores > 0).astype(int)


def step(client: Any, x: Any, y: np.ndarray, batch: int, limited: tuple[int, ...], sparse: bool) -> tuple[float, float]:
    """Train; return the seconds of a step, and the bytes that a rank has sent in one."""
    import scaleml
    from scaleml import SGD, AllReduce, LinearModel, faults

    epochs = EPOCHS[batch]
    run = scaleml.train(
        LinearModel(),
        x,
        y,
        strategy=AllReduce(sparse=sparse),
        optimizer=SGD(0.5),
        epochs=epochs,
        batch_size=batch,
        workers=2,
        client=client,
        faults=[faults.Bandwidth(rank, GIGABIT) for rank in limited],
    )
    steps = run.ledger.updates[0]
    seconds = ours.timed_seconds(run, epochs) / (steps * (epochs - 1) / epochs)
    return seconds, float(run.ledger.bytes_sent[0] / steps)


if __name__ == "__main__":
    alone(measure, __doc__)
