"""One rank's epoch against the same mathematics, in the same order, in a bare NumPy loop.

Both train on the same rows with one BLAS thread and take turns, each bare loop in a fresh process; the first epoch of
each is not timed. Where the two end with the same parameters, bit for bit, the row says so: then nothing was left out.
"""

import tempfile
from pathlib import Path

import numpy as np

from . import bare, ours
from .pairs import pair
from .problems import PROBLEMS
from .report import Row, alone, compare

WHAT = {
    "linear": ("a step of LinearModel, 200 columns, batch 1024", 1.15),
    "mlp": ("a step of MLP 784-256-10, batch 256", 1.03),
}


def measure(rounds: int) -> list[Row]:
    """Measure both models in `rounds` rounds each."""
    return [_row(kind, rounds) for kind in WHAT]


def _row(kind: str, rounds: int) -> Row:
    from scaleml import Serial

    problem, (what, target) = PROBLEMS[kind], WHAT[kind]
    steps = problem.timed_rows / problem.batch
    mine, theirs, same = [], [], True
    with tempfile.TemporaryDirectory() as folder:
        order = Path(folder) / "order.npy"
        np.save(order, ours.orders(problem, 1)[0])
        for _ in range(rounds):
            run = ours.train(problem, Serial(threads=1), 1)
            mine.append(1e6 * ours.timed_seconds(run, problem.epochs) / steps)
            with pair("benchmarks.bare", kind, ranks=1) as process:
                (answer,) = process.ask({"do": "train", "order": str(order)})
            theirs.append(1e6 * answer["seconds"] / steps)
            same &= bare.digest(np.asarray(run.params)) == answer["digest"]
    note = "same bits" if same else "not the same bits: is it the same mathematics?"
    return compare(what, "bare NumPy loop", mine, theirs, "us", target, sense="at most", note=note)


if __name__ == "__main__":
    alone(measure, __doc__)
