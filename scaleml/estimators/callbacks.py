"""scikit-learn's callbacks (1.9 and newer), and a line an epoch for ``verbose``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from scaleml.engine.local import OnEpoch

try:
    from sklearn import callback as _sk
except ImportError:  # scikit-learn before 1.9
    _sk = None

_Method = TypeVar("_Method", bound=Callable[..., Any])


class _Unsupported:
    """Nothing: this scikit-learn has no callbacks."""


CallbackSupport: Any = _Unsupported if _sk is None else _sk.CallbackSupportMixin


def with_callbacks(method: _Method) -> _Method:
    """Have scikit-learn's callbacks torn down when the method returns or raises."""
    return method if _sk is None else cast(_Method, _sk.with_callbacks(method))


@contextmanager
def told(
    estimator: Any, X: Any, y: Any, epochs: int, fitted: Callable[[Any], dict[str, Any]], sample_weight: Any = None
) -> Iterator[Sequence[OnEpoch]]:
    """Tell scikit-learn's callbacks of a fit: its begin, its end, and as yielded functions its epochs.

    Parameters
    ----------
    fitted : callable
        Parameters (P,) -> the fitted attributes that make the estimator ready to predict.
    """
    if not hasattr(estimator, "_init_callback_context") or not getattr(estimator, "_skl_callbacks", None):
        yield [_Lines(estimator)] if estimator.verbose else []
        return
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    facts = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
    context = estimator._init_callback_context(max_subtasks=epochs)
    context.call_on_fit_task_begin(**facts)
    each = _Epochs(context, facts, fitted, epochs)
    yield [*([_Lines(estimator)] if estimator.verbose else []), each]
    each.close()
    context.call_on_fit_task_end(**facts, reconstruction_attributes={})


class _Epochs:
    """One subtask an epoch."""

    def __init__(self, context: Any, facts: dict[str, Any], fitted: Callable[[Any], dict[str, Any]], most: int) -> None:
        self._context, self._facts, self._fitted, self._left = context, facts, fitted, most
        self._open: Any = None
        self._begin()

    def __call__(self, loop: Any) -> None:
        attributes = self._fitted(loop.optimizer.optimizer.result(loop.w, loop.state, loop.optimizer.t))
        if self._open.call_on_fit_task_end(**self._facts, reconstruction_attributes=attributes):
            loop.progress.converged = True
        self._open = None
        if not loop.progress.converged:
            self._begin()

    def _begin(self) -> None:
        if self._left:
            self._left -= 1
            self._open = self._context.subcontext(task_name="epoch")
            self._open.call_on_fit_task_begin(**self._facts)

    def close(self) -> None:
        """End the subtask of an epoch that never ran."""
        if self._open is not None:
            self._open.call_on_fit_task_end(estimator=self._facts["estimator"])


class _Lines:
    """A line an epoch."""

    def __init__(self, estimator: Any) -> None:
        self._name = type(estimator).__name__

    def __call__(self, loop: Any) -> None:
        progress = loop.progress
        score = f", validation score = {progress.scores[-1]:.6f}" if progress.scores else ""
        sys.stdout.write(f"{self._name}, epoch {loop.epoch}, loss = {progress.losses[-1]:.8f}{score}\n")
