"""Plain NumPy training, written without the package (but for which rows make a batch): what the strategies must equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from scaleml.data.batches import Schedule
from scaleml.data.split import hold_out

Array = Any


@dataclass
class Problem:
    """Data in the order of a run, cut into shards, and the objective: a tanh network (or none) over its columns."""

    x: Array
    y: Array
    sizes: tuple[int, ...]
    """Units of each layer, from the columns of x to the outputs."""
    loss: str
    l2: float = 0.0
    weight: Array = None
    shards: int = 1
    seed: int = 0
    bounds: list[int] = field(init=False)

    def __post_init__(self) -> None:
        order = hold_out(len(self.y), 0.0, self.seed)[0]
        self.x, self.y = np.asarray(self.x, float)[order], np.asarray(self.y, float)[order]
        self.weight = np.ones(len(order)) if self.weight is None else np.asarray(self.weight, float)[order]
        self.bounds = [len(order) * s // self.shards for s in range(self.shards + 1)]

    def gradient(self, w: Array, rows: Array) -> Array | None:
        """Return the gradient of the mean loss over `rows` plus the penalty; None if they weigh nothing."""
        x, y, s = self.x[rows], self.y[rows], self.weight[rows]
        if not s.sum():
            return None
        layers, at = [], 0
        for m, n in pairwise(self.sizes):
            layers.append((w[at : at + m * n].reshape(m, n), w[at + m * n : at + m * n + n]))
            at += m * n + n
        outputs = [x]
        for weights, biases in layers:
            z = outputs[-1] @ weights + biases
            outputs.append(np.tanh(z) if len(outputs) < len(layers) else z)
        d = self._slope(outputs[-1], y) * (s / s.sum())[:, None]
        parts: list[Array] = []
        for i, (weights, _) in reversed(list(enumerate(layers))):
            parts = [(outputs[i].T @ d + self.l2 * weights).ravel(), d.sum(axis=0), *parts]
            d = (d @ weights.T) * (1 - outputs[i] ** 2)
        return np.concatenate(parts)

    def _slope(self, score: Array, y: Array) -> Array:
        if self.loss == "binary":
            return 1 / (1 + np.exp(-score)) - y[:, None]
        if self.loss == "multiclass":
            e = np.exp(score - score.max(axis=1, keepdims=True))
            return e / e.sum(axis=1, keepdims=True) - np.eye(score.shape[1])[y.astype(int)]
        return score - y.reshape(score.shape)

    def batches(self, epochs: int, batch: Callable[[int], int] | int) -> Iterator[list[Array]]:
        """Yield, for each step, the rows of every shard that belong to its batch."""
        schedule = Schedule([b - a for a, b in pairwise(self.bounds)])
        step = 0
        for _ in range(epochs):
            done = 0
            while done < schedule.rows:
                size = batch(step) if callable(batch) else batch
                after = min(done + size, schedule.rows)
                yield [
                    np.arange(start + schedule.taken(s, done), start + schedule.taken(s, after))
                    for s, start in enumerate(self.bounds[:-1])
                ]
                done, step = after, step + 1


class Sgd:
    """w -= rate(t) * v with v = momentum * v + g, after clipping g; Nesterov looks ahead."""

    def __init__(
        self,
        rate: Callable[[int], float] | float,
        momentum: float = 0.0,
        nesterov: bool = False,
        clip: float | None = None,
    ) -> None:
        self.rate = rate if callable(rate) else lambda t: rate
        self.momentum, self.nesterov, self.clip = momentum, nesterov, clip
        self.v: Array = 0.0
        self.t = 0

    def __call__(self, w: Array, g: Array) -> Array:
        self.t += 1
        if self.clip is not None:
            g = g * min(1.0, self.clip / np.linalg.norm(g))
        self.v = self.momentum * self.v + g
        return w - self.rate(self.t) * (g + self.momentum * self.v if self.nesterov else self.v)


class Adam:
    """Kingma and Ba, algorithm 1."""

    def __init__(self, rate: float, beta: float = 0.9, gamma: float = 0.999, epsilon: float = 1e-8) -> None:
        self.rate, self.beta, self.gamma, self.epsilon = rate, beta, gamma, epsilon
        self.m: Array = 0.0
        self.v: Array = 0.0
        self.t = 0

    def __call__(self, w: Array, g: Array) -> Array:
        self.t += 1
        self.m = self.beta * self.m + (1 - self.beta) * g
        self.v = self.gamma * self.v + (1 - self.gamma) * g**2
        m, v = self.m / (1 - self.beta**self.t), self.v / (1 - self.gamma**self.t)
        return w - self.rate * m / (np.sqrt(v) + self.epsilon)


class AdaGrad:
    """Duchi, Hazan and Singer: each coordinate's rate shrinks with the gradients it has seen."""

    def __init__(self, rate: float, epsilon: float = 1e-10) -> None:
        self.rate, self.epsilon, self.sum = rate, epsilon, 0.0

    def __call__(self, w: Array, g: Array) -> Array:
        self.sum = self.sum + g**2
        return w - self.rate * g / (np.sqrt(self.sum) + self.epsilon)


def serial(
    problem: Problem, w: Array, rule: Callable[[Array, Array], Array], epochs: int, batch: Any, steps: int | None = None
) -> Array:
    """Minibatch SGD over the whole batch of every step; at most `steps` of them."""
    for step, parts in enumerate(problem.batches(epochs, batch)):
        if step == steps:
            break
        g = problem.gradient(w, np.concatenate(parts))
        w = w if g is None else rule(w, g)
    return w


def local(
    problem: Problem,
    w: Array,
    rules: list[Callable[[Array, Array], Array]],
    epochs: int,
    batch: int,
    period: int | None,
    outer: Callable[[Array, Array], Array] | None = None,
    start_after: int = 0,
) -> Array:
    """Local SGD: each rank has a rule with a state of its own; means every `period` steps and at the end.

    The first `start_after` steps take the whole batch's gradient on every rank; `outer` steps from mean to mean.
    """
    copies, anchor = [w] * len(rules), w

    def agree() -> Array:
        mean = np.mean(copies, axis=0)
        return mean if outer is None else outer(anchor, anchor - mean)

    for taken, parts in enumerate(problem.batches(epochs, batch), 1):
        for rank, rule in enumerate(rules):
            mine = np.concatenate(parts) if taken <= start_after else share(parts, len(rules), rank)
            g = problem.gradient(copies[rank], mine)
            copies[rank] = copies[rank] if g is None else rule(copies[rank], g)
        if taken <= start_after:
            anchor = copies[0]
        elif period is not None and (taken - start_after) % period == 0:
            anchor = agree()
            copies = [anchor] * len(rules)
    together = taken <= start_after or (period is not None and (taken - start_after) % period == 0)
    return copies[0] if together else agree()


def share(parts: list[Array], ranks: int, rank: int) -> Array:
    """Return the rows of a rank: of each shard's slice what lies between its ends on the line of all shards."""
    ends = [Fraction(r * len(parts), ranks) for r in (rank, rank + 1)]
    mine = []
    for shard, rows in enumerate(parts):
        low, high = (math.floor(len(rows) * min(max(end - shard, Fraction(0)), Fraction(1))) for end in ends)
        mine.append(rows[low:high])
    return np.concatenate(mine)


def gossip(
    problem: Problem,
    w: Array,
    rules: list[Callable[[Array, Array], Array]],
    epochs: int,
    batch: int,
    mixing: Callable[[int], Array],
    steps: int | None = None,
) -> Array:
    """Decentralised SGD: a step of each rank's own, then ``W = mixing(step)``; return the mean at the end."""
    copies = np.array([w] * len(rules))
    for step, parts in enumerate(problem.batches(epochs, batch)):
        if step == steps:
            break
        for rank, rule in enumerate(rules):
            g = problem.gradient(copies[rank], share(parts, len(rules), rank))
            if g is not None:
                copies[rank] = rule(copies[rank], g)
        copies = mixing(step) @ copies
    return copies.mean(axis=0)
