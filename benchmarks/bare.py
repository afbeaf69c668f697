"""The other side of `numpy_loop` and `two_ranks`: training in bare NumPy, one process or two with a barrier.

The mathematics of scaleml's LinearModel and MLP in the same order, as one would write it by hand for speed: every array
is made once, every product goes where it belongs, and nothing is checked, recorded or sent. So the parameters come out
the same, bit for bit.
"""

import hashlib
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .pairs import answer_requests, dial
from .problems import ALPHA, PROBLEMS, Problem

Step = Callable[[np.ndarray, np.ndarray], float]


def linear(w: np.ndarray, problem: Problem, batch: int) -> Step:
    """Return one step of logistic regression on ``w`` (features + 1,) and a batch."""
    n, rate, alpha = problem.features, problem.rate, ALPHA
    scores, sign, half = (np.empty(batch, np.float32) for _ in range(3))
    g = np.empty_like(w)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        np.matmul(x, w[:n], out=scores)
        np.add(scores, w[n], out=scores)
        # log(1 + exp(-m)) by tanh(m / 2), with margin m
        np.subtract(y, 0.5, out=sign)
        np.multiply(scores, sign, out=scores)
        np.tanh(scores, out=half)
        np.multiply(half, sign, out=half)
        np.subtract(half, sign, out=sign)
        np.absolute(half, out=half)
        np.add(half, 0.5, out=half)
        np.log(half, out=half)
        np.minimum(scores, 0, out=scores)
        np.multiply(scores, -2, out=scores)
        np.subtract(scores, half, out=scores)
        loss = float(scores.sum())
        np.matmul(sign, x, out=g[:n])
        g[n] = sign.sum()
        np.multiply(g, 1.0 / batch, out=g)
        g[:n] += w[:n] * alpha
        np.multiply(g, rate, out=g)
        np.subtract(w, g, out=w)
        return loss

    return step


def mlp(w: np.ndarray, problem: Problem, batch: int) -> Step:
    """Return one step of a perceptron with one hidden layer of relus and softmax, on ``w`` and a batch."""
    n, m, k, rate, alpha = problem.features, problem.hidden, problem.classes, problem.rate, ALPHA
    g = np.empty_like(w)
    (w1, b1, w2, b2), (g1, c1, g2, c2) = _layers(w, n, m, k), _layers(g, n, m, k)
    hidden, dx = np.empty((batch, m), np.float32), np.empty((batch, m), np.float32)
    scores, mask, rows = np.empty((batch, k), np.float32), np.empty((batch, m), bool), np.arange(batch)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        np.matmul(x, w1, out=hidden)
        np.add(hidden, b1, out=hidden)
        np.maximum(hidden, 0, out=hidden)
        np.matmul(hidden, w2, out=scores)
        np.add(scores, b2, out=scores)
        np.subtract(scores, scores.max(axis=1, keepdims=True), out=scores)
        of_class = scores[rows, y]
        np.exp(scores, out=scores)
        total = scores.sum(axis=1)
        np.divide(scores, total[:, None], out=scores)
        scores[rows, y] -= 1
        loss = float((np.log(total) - of_class).sum())
        np.matmul(hidden.T, scores, out=g2)
        scores.sum(axis=0, out=c2)
        np.matmul(scores, w2.T, out=dx)
        np.greater(hidden, 0, out=mask)
        np.multiply(dx, mask, out=dx)
        np.matmul(x.T, dx, out=g1)
        dx.sum(axis=0, out=c1)
        np.multiply(g, 1.0 / batch, out=g)
        g1.__iadd__(w1 * alpha)
        g2.__iadd__(w2 * alpha)
        np.multiply(g, rate, out=g)
        np.subtract(w, g, out=w)
        return loss

    return step


def _layers(v: np.ndarray, n: int, m: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    a, b, c = n * m, n * m + m, n * m + m + m * k
    return v[:a].reshape(n, m), v[a:b], v[b:c].reshape(m, k), v[c:]


def start(problem: Problem, seed: int) -> np.ndarray:
    """Return the parameters at the start: zeros, or Glorot's uniform as in scikit-learn."""
    n, m, k = problem.features, problem.hidden, problem.classes
    if not m:
        return np.zeros(n + 1, np.float32)
    random = np.random.RandomState(seed)
    parts = []
    for inputs, outputs in ((n, m), (m, k)):
        bound = (6.0 / (inputs + outputs)) ** 0.5
        parts.append(random.uniform(-bound, bound, (inputs + 1) * outputs))
    return np.concatenate(parts).astype(np.float32)


def train(problem: Problem, order: np.ndarray, barrier: Callable[[], Any] | None) -> dict[str, Any]:
    """Train on the rows of `order`; return the seconds of all epochs but the first, and a digest of the parameters."""
    x, y = problem.data()
    x, y = x[order], (y[order].astype(np.float32) if not problem.hidden else y[order])
    batch, rows = problem.batch, len(order) - len(order) % problem.batch
    w = start(problem, 0)
    step = (mlp if problem.hidden else linear)(w, problem, batch)
    kept = w.copy()
    step(x[:batch], y[:batch])  # the first calls of BLAS and the first touch of memory
    w[:] = kept
    begun = 0.0
    for epoch in range(problem.epochs):
        if epoch == 1:
            begun = time.perf_counter()
        for at in range(0, rows, batch):
            step(x[at : at + batch], y[at : at + batch])
            if barrier is not None:
                barrier()
    return {"seconds": time.perf_counter() - begun, "digest": digest(w)}


def digest(w: np.ndarray) -> str:
    """Return a name for the bits of `w`."""
    return hashlib.sha256(np.ascontiguousarray(w).tobytes()).hexdigest()


class Barrier:
    """Two processes wait for each other by one byte each way: the cheapest barrier that does not spin."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None

    def listen(self) -> int:
        """Open the first side; return its port."""
        self.server = socket.create_server(("127.0.0.1", 0))
        return int(self.server.getsockname()[1])

    def join(self, port: int, first: bool) -> None:
        """Connect both sides."""
        self.socket = self.server.accept()[0] if first else socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __call__(self) -> None:
        """Wait for the other side."""
        assert self.socket is not None
        self.socket.send(b"x")
        self.socket.recv(1)


def _main() -> None:
    problem, rank = PROBLEMS[sys.argv[1]], int(sys.argv[-2])
    barrier = Barrier()

    def answer(message: dict[str, Any]) -> Any:
        match message["do"]:
            case "listen":
                return barrier.listen()
            case "join":
                return barrier.join(message["port"], rank == 0)
            case _:
                order = np.load(message["order"])
                return train(problem, order, barrier if barrier.socket else None)

    pipe = dial()
    pipe.send({"rank": rank})
    answer_requests(pipe, answer)


if __name__ == "__main__":
    _main()
