"""Time to the same held-out loss: logistic regression on 400,000 dense rows of 200 columns, two workers, data resident.

All minimise the same objective (alpha 1e-4) on the same float32 rows: normal columns whose scales fall from 1 to 0.3, labels drawn by a
linear teacher so that the optimum's held-out loss is 0.1043. Two losses are aimed at: 0.110, and 0.2% above what lbfgs converges to.
Evaluations are on nobody's clock. Ours and DDP stop the clock twenty times an epoch, and so does scikit-learn's SGD, by `partial_fit` on a
twentieth of the rows; lbfgs after each iteration. Incremental learns as many such blocks as that SGD needs, in one graph. Every rate was
searched for on these data, ours and the peers', and scikit-learn's SGD and Incremental run with their default rates as well.
Every side has one BLAS thread a process, except lbfgs, which has one a core. Beside it stands the cold `fit` of the estimators, with all
it takes: the cluster stands, the data is not on it.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from copy import deepcopy
from importlib.util import find_spec
from typing import Any

import numpy as np
from dask.delayed import delayed

from .pairs import answer_requests, dial, pair
from .report import Row, alone, compare, missing

ROWS, HELD_OUT, FEATURES, NORM, NARROWEST = 400_000, 40_000, 200, 13.38, 0.3
ALPHA, BATCH, RATE = 1e-4, 2048, 120.0
NEAR, AT = 0.110, 1.002
TUNED = {"learning_rate": "invscaling", "eta0": 3.0}
PARTS, EPOCHS, PATIENCE = 20, 6, 40


def data() -> tuple[Any, Any, Any, Any]:
    """Return X, y and held-out X, y: the same at every call."""
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS + HELD_OUT, FEATURES), dtype=np.float32)
    teacher = random.standard_normal(FEATURES, dtype=np.float32)
    teacher *= NORM / np.linalg.norm(teacher)
    y = (random.random(len(x)) < 1 / (1 + np.exp(-(x @ teacher)))).astype(np.float32)
    x *= np.geomspace(1, NARROWEST, FEATURES, dtype=np.float32)
    return x[:ROWS], y[:ROWS], x[ROWS:], y[ROWS:]


def loss(coef: Any, intercept: Any, x: Any, y: Any) -> float:
    """Return the mean logistic loss."""
    scores = x @ np.asarray(coef, np.float32).ravel() + float(np.ravel(intercept)[0])
    return float(np.logaddexp(0, np.where(y > 0, -scores, scores)).mean())


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds."""
    from distributed import Client, LocalCluster

    x, y, held_x, held_y = data()
    best, iterations = _lbfgs_iterations(x, y, held_x, held_y)
    near, at = NEAR, AT * best
    peers: dict[str, list[float]] = {
        name: [] for name in ("sgd", "tuned", "lbfgs", "incremental", "tuned incremental", "ddp", "cold sgd")
    }
    mine: dict[str, list[float]] = {name: [] for name in ("near", "at", "cold", "cold here")}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        _ddp() as ddp,
    ):
        placed, *blocks = _place(x, y, held_x, held_y, client)
        _incremental(client, blocks, 2)  # both workers import what it needs
        for _ in range(rounds):
            reached = _ours(placed, client, (near, at))
            mine["near"].append(reached[0])
            mine["at"].append(reached[1])
            seconds, parts = _sgd(x, y, held_x, held_y, near)
            peers["sgd"].append(seconds)
            peers["incremental"].append(_incremental(client, blocks, parts))
            seconds, parts = _sgd(x, y, held_x, held_y, near, **TUNED)
            peers["tuned"].append(seconds)
            peers["tuned incremental"].append(_incremental(client, blocks, parts, **TUNED))
            peers["lbfgs"].append(_lbfgs(x, y, iterations[at]))
            if ddp is not None:
                peers["ddp"].append(max(ddp.ask({"do": "train", "target": near})))
            for name, seconds in _cold(x, y, client).items():
                (mine if name in mine else peers)[name].append(seconds)
        placed.close()
    return _rows(mine, peers, near, at)


def _rows(mine: dict[str, list[float]], peers: dict[str, list[float]], near: float, at: float) -> list[Row]:
    what = f"to a held-out loss of {near:.3f}"
    incremental = (
        "dask-ml's Incremental" if find_spec("dask_ml") else "dask-ml's algorithm: Incremental's chain of tasks"
    )
    rows = [
        compare(what, "scikit-learn SGDClassifier", mine["near"], peers["sgd"], "s", 2, inverse=True),
        compare(what, "the same, its rates tuned", mine["near"], peers["tuned"], "s", 2, inverse=True),
        compare(what, incremental, mine["near"], peers["incremental"], "s", 10, inverse=True),
        compare(what, "the same, its rates tuned", mine["near"], peers["tuned incremental"], "s", inverse=True),
    ]
    if peers["ddp"]:
        rows.append(compare(what, "PyTorch DDP on gloo", mine["near"], peers["ddp"], "s", 2, inverse=True))
    else:
        rows.append(missing(what, "PyTorch DDP on gloo", 2, "pip install torch"))
    return [
        *rows,
        compare(f"to {at:.4f}, {AT - 1:.1%} above", "lbfgs", mine["at"], peers["lbfgs"], "s", 1, inverse=True),
        compare("cold fit, AllReduce()", "scikit-learn's fit", mine["cold"], peers["cold sgd"], "s", inverse=True),
        compare("cold fit, 'auto'", "scikit-learn's fit", mine["cold here"], peers["cold sgd"], "s", inverse=True),
    ]


def _place(x: Any, y: Any, held_x: Any, held_y: Any, client: Any) -> tuple[Any, Any, Any]:
    """Bring the data to the workers: ours as shards, Incremental's as two Dask arrays of `PARTS` blocks."""
    import dask.array as da

    from scaleml import LinearModel
    from scaleml.cluster.staging.training_data import TrainingData

    placed = TrainingData(LinearModel(alpha=ALPHA), x, y, None, (held_x, held_y), 0)
    size, arrays = len(x) // PARTS, []
    for whole in (x, y):
        parts = client.scatter([whole[a : a + size] for a in range(0, len(x), size)], hash=False)
        shape = (size, *whole.shape[1:])
        arrays.append(da.concatenate([da.from_delayed(part, shape, whole.dtype) for part in parts]))
    return placed, *arrays


def _ours(placed: Any, client: Any, targets: tuple[float, float]) -> list[float]:
    from scaleml import SGD, AllReduce, LinearModel
    from scaleml.api.launch import launch
    from scaleml.api.settings import Settings

    settings = Settings(
        LinearModel(alpha=ALPHA),
        AllReduce(),
        SGD(RATE, schedule="invscaling"),
        epochs=EPOCHS,
        batch_size=BATCH,
        evaluations_an_epoch=PARTS,
    )
    evaluations = launch(settings, placed, client, False, 2).wait().history.evaluations
    losses, times = evaluations["loss"], evaluations["time"]
    reached = [times[losses <= target] for target in targets]
    assert all(len(found) for found in reached), f"{losses.min():.4f} at best, not {targets}"
    return [float(found[0]) for found in reached]


def _sgd(x: Any, y: Any, held_x: Any, held_y: Any, target: float, **rates: Any) -> tuple[float, int]:
    """Return scikit-learn's seconds, and the calls of `partial_fit` it took."""
    from sklearn.linear_model import SGDClassifier

    model, seconds, size = SGDClassifier(loss="log_loss", alpha=ALPHA, random_state=0, **rates), 0.0, len(x) // PARTS
    for part in range(PATIENCE * PARTS):
        at = part % PARTS * size
        begun = time.perf_counter()
        model.partial_fit(x[at : at + size], y[at : at + size], classes=[0, 1])
        seconds += time.perf_counter() - begun
        if loss(model.coef_, model.intercept_, held_x, held_y) <= target:
            return seconds, part + 1
    raise AssertionError("scikit-learn's SGD did not come to the loss")


def _lbfgs_iterations(x: Any, y: Any, held_x: Any, held_y: Any) -> tuple[float, dict[float, int]]:
    """Return the held-out loss at the optimum, and the iterations to `AT` times that."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (ALPHA * len(x))).fit(x, y)
    best = loss(model.coef_, model.intercept_, held_x, held_y)
    needed = int(model.n_iter_[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while needed > 1:
            model = LogisticRegression(C=1 / (ALPHA * len(x)), max_iter=needed - 1).fit(x, y)
            if loss(model.coef_, model.intercept_, held_x, held_y) > AT * best:
                break
            needed -= 1
    return best, {AT * best: needed}


def _lbfgs(x: Any, y: Any, iterations: int) -> float:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(os.cpu_count()):
        warnings.simplefilter("ignore")
        begun = time.perf_counter()
        LogisticRegression(C=1 / (ALPHA * len(x)), max_iter=iterations).fit(x, y)
        return time.perf_counter() - begun


def _incremental(client: Any, blocks: list[Any], parts: int, **rates: Any) -> float:
    """Return the seconds in which dask-ml learns so many blocks: a chain of tasks, each `partial_fit` of the model before."""
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(loss="log_loss", alpha=ALPHA, random_state=0, **rates)
    taken = np.arange(parts) % PARTS
    X, y = (array.blocks[taken] for array in blocks)
    if find_spec("dask_ml") is None:
        begun = time.perf_counter()
        chain = client.scatter(model, hash=False)
        for part in zip(X.to_delayed().ravel(), y.to_delayed().ravel(), strict=True):
            chain = delayed(_partial, pure=False)(chain, *part)
        client.compute(chain).result()
        return time.perf_counter() - begun
    from dask_ml.wrappers import Incremental

    begun = time.perf_counter()
    Incremental(model, shuffle_blocks=False).partial_fit(X, y, classes=[0, 1])
    return time.perf_counter() - begun


def _partial(model: Any, x: Any, y: Any) -> Any:
    """What dask-ml's Incremental does in a task: a copy of the model learns one block."""
    return deepcopy(model).partial_fit(x, y, classes=[0, 1])


def _cold(x: Any, y: Any, client: Any) -> dict[str, float]:
    """Return the seconds of whole fits, to where `tol` ends them, with the estimators' own settings."""
    from sklearn import linear_model

    from scaleml import AllReduce
    from scaleml.linear_model import SGDClassifier

    settings: dict[str, Any] = {"loss": "log_loss", "alpha": ALPHA, "random_state": 0}
    there = SGDClassifier(strategy=AllReduce(), workers=2, **settings)
    there.client = client
    seconds = {}
    for name, model in {
        "cold": there,
        "cold here": SGDClassifier(**settings),
        "cold sgd": linear_model.SGDClassifier(**settings),
    }.items():
        begun = time.perf_counter()
        model.fit(x, y)
        seconds[name] = time.perf_counter() - begun
    return seconds


def _ddp() -> Any:
    """Return the two processes of DDP, as a context; of nothing without PyTorch."""
    from contextlib import nullcontext

    return nullcontext() if find_spec("torch") is None else pair("benchmarks.time_to_loss", "ddp")


class _Torch:
    """One of two processes that train with DDP on gloo: half the rows, the same batches, rate and penalty."""

    def __init__(self, rank: int, store: str) -> None:
        import torch
        from torch.distributed import init_process_group

        torch.set_num_threads(1)
        init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
        x, y, held_x, held_y = (torch.from_numpy(part) for part in data())
        order = torch.from_numpy(np.random.default_rng(0).permutation(ROWS)[rank::2].copy())
        self.x, self.y, self.held = x[order], y[order], (held_x.numpy(), held_y.numpy())

    def train(self, target: float) -> float:
        """Return the seconds to the loss, evaluations excluded."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits
        from torch.nn.parallel import DistributedDataParallel

        torch.manual_seed(0)
        linear = torch.nn.Linear(FEATURES, 1)
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
        model = DistributedDataParallel(linear)
        groups: list[Any] = [{"params": [linear.weight], "weight_decay": ALPHA}, {"params": [linear.bias]}]
        rule = torch.optim.SGD(groups, lr=RATE)
        half, step, seconds = BATCH // 2, 0, 0.0
        every = ROWS // BATCH // PARTS
        begun = time.perf_counter()
        for _ in range(EPOCHS):
            for at in range(0, len(self.x) - half + 1, half):
                step += 1
                for group in rule.param_groups:
                    group["lr"] = RATE / step**0.5
                rule.zero_grad()
                binary_cross_entropy_with_logits(model(self.x[at : at + half])[:, 0], self.y[at : at + half]).backward()
                rule.step()
                if step % every == 0:
                    seconds += time.perf_counter() - begun
                    now = loss(linear.weight.detach().numpy(), linear.bias.detach().numpy(), *self.held)
                    if now <= target:
                        return seconds
                    torch.distributed.barrier()
                    begun = time.perf_counter()
        raise AssertionError("DDP did not come to the loss")


def _main() -> None:
    rank = int(sys.argv[-2])
    process = _Torch(rank, f"{sys.argv[-1]}.store")
    pipe = dial()
    pipe.send({"rank": rank})
    answer_requests(pipe, lambda message: process.train(message["target"]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["ddp"]:
        _main()
    else:
        alone(measure, __doc__)
