"""Two ranks on an MLP (784-256-10, 256 rows a rank) against two bare NumPy processes with a bare barrier a step.

The bare pair exchanges one byte a step and no gradient, so it does less: it is what two processes of this machine reach
at most. One bare process beside it shows how far from twice that is. All take turns; the first epoch of each is not
timed.
"""

import tempfile
from pathlib import Path

import numpy as np

from . import ours
from .pairs import pair
from .problems import PROBLEMS
from .report import Row, alone, compare


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds."""
    from scaleml import AllReduce

    problem = PROBLEMS["mlp"]
    mine, both, single = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        orders = []
        for rank, order in enumerate(ours.orders(problem, 2)):
            orders.append(Path(folder) / f"{rank}.npy")
            np.save(orders[rank], order)
        for _ in range(rounds):
            run = ours.train(problem, AllReduce(), 2)
            mine.append(problem.timed_rows / ours.timed_seconds(run, problem.epochs))
            both.append(problem.timed_rows / _bare(orders))
            single.append(problem.timed_rows / 2 / _bare(orders[:1]))
    what = "two ranks on MLP 784-256-10, 256 rows a rank"
    return [
        compare(what, "two bare NumPy processes, a barrier a step", mine, both, "samples/s", 0.95),
        compare("the two bare processes", "one of them alone", both, single, "samples/s", note="two cores here"),
    ]


def _bare(orders: list[Path]) -> float:
    """Return the seconds of the slower of the bare processes, one for each of `orders`."""
    with pair("benchmarks.bare", "mlp", ranks=len(orders)) as processes:
        if len(orders) > 1:
            port, _ = processes.ask({"do": "listen"})
            processes.ask({"do": "join", "port": port})
        answers = processes.ask_each([{"do": "train", "order": str(order)} for order in orders])
    return max(float(answer["seconds"]) for answer in answers)


if __name__ == "__main__":
    alone(measure, __doc__)
