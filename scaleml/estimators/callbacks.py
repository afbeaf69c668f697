"""Callbacks of a fit: scikit-learn's, those of ``train``, and what ``verbose`` shows.

An estimator keeps both kinds where scikit-learn keeps its own, so that they are cloned and handed on alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast, final

from scaleml.api.in_process_run import InProcessRun, followed
from scaleml.api.watchers import Epoch, OnEpoch, Watchers
from scaleml.callbacks.base import Callback
from scaleml.telemetry.fitting import Fitting

try:
    from sklearn import callback as _sk
except ImportError:  # scikit-learn before 1.9
    _sk = None

_Method = TypeVar("_Method", bound=Callable[..., Any])


@final
class _Told:
    """A callback of ``train`` as scikit-learn keeps and clones it: it is told of the run, not of scikit-learn's tasks.

    Parameters
    ----------
    callback : Callback
    """

    def __init__(self, callback: Callback) -> None:
        self.callback = callback

    def __repr__(self) -> str:
        return repr(self.callback)

    def setup(self, estimator: Any, context: Any) -> None:
        """Do nothing."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Do nothing."""

    def on_fit_task_begin(self, estimator: Any, context: Any, **facts: Any) -> None:
        """Do nothing."""

    def on_fit_task_end(self, estimator: Any, context: Any, **facts: Any) -> bool:
        """Do nothing, and have nothing ended."""
        return False


def as_scikit_learns(callbacks: Sequence[Any]) -> list[Any]:
    """Return callbacks as scikit-learn takes them."""
    return [_Told(callback) if isinstance(callback, Callback) else callback for callback in callbacks]


def callbacks_of(estimator: Any) -> list[Callback]:
    """Return those of an estimator's callbacks that are told of runs."""
    return [each.callback for each in getattr(estimator, "_skl_callbacks", ()) if isinstance(each, _Told)]


@contextmanager
def told_of_both_ends(estimator: Any) -> Iterator[None]:
    """Tell an estimator's callbacks that scikit-learn's own code begins to fit it, and how that ends."""
    callbacks = callbacks_of(estimator)
    if not callbacks:
        yield
        return
    name = type(estimator).__name__
    settings = ", ".join(f"{key}={value!r}" for key, value in estimator.get_params(deep=False).items())
    run = InProcessRun(f"{name}()", {**estimator.get_params(deep=False), "strategy": "scikit-learn"}, settings=settings)
    with followed(run, callbacks):
        yield


class _Unsupported:
    """Nothing: this scikit-learn has no callbacks."""


CallbackSupport: Any = _Unsupported if _sk is None else _sk.CallbackSupportMixin


def with_callbacks(method: _Method) -> _Method:
    """Have scikit-learn's callbacks torn down when the method returns or raises."""
    return method if _sk is None else cast(_Method, _sk.with_callbacks(method))


@contextmanager
def told(
    estimator: Any, given: tuple[Any, Any, Any], epochs: int, fitted: Callable[[Any], dict[str, Any]]
) -> Iterator[Watchers]:
    """Tell scikit-learn's callbacks of a fit, its begin, its epochs and its end, show what ``verbose`` asks for, and say who else is told.

    Parameters
    ----------
    given : tuple
        X, y and the weights.
    epochs : int
        The most there may be.
    fitted : callable
        Parameters (P,) -> the fitted attributes that make the estimator ready to predict.
    """
    if not estimator.verbose:
        with _callbacks(estimator, given, epochs, fitted) as each:
            yield Watchers(each, snapshots=bool(each), callbacks=callbacks_of(estimator))
        return
    with (
        Fitting(type(estimator).__name__, epochs, int(estimator.verbose)) as display,
        _callbacks(estimator, given, epochs, fitted) as each,
    ):
        shown: OnEpoch = lambda epoch: display.on_epoch(epoch.loss, epoch.score)  # noqa: E731
        yield Watchers([shown, *each], display.on_look, bool(each), callbacks_of(estimator))


@contextmanager
def _callbacks(
    estimator: Any, given: tuple[Any, Any, Any], epochs: int, fitted: Callable[[Any], dict[str, Any]]
) -> Iterator[list[OnEpoch]]:
    theirs = [callback for callback in getattr(estimator, "_skl_callbacks", ()) if not isinstance(callback, _Told)]
    if not hasattr(estimator, "_init_callback_context") or not theirs:
        yield []
        return
    X, y, sample_weight = given
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    facts = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
    context = estimator._init_callback_context(max_subtasks=epochs)
    context.call_on_fit_task_begin(**facts)
    each = _Epochs(context, facts, fitted, epochs)
    yield [each]
    each.close()
    context.call_on_fit_task_end(**facts, reconstruction_attributes={})


class _Epochs:
    """One subtask an epoch."""

    def __init__(self, context: Any, facts: dict[str, Any], fitted: Callable[[Any], dict[str, Any]], most: int) -> None:
        self._context, self._facts, self._fitted, self._left = context, facts, fitted, most
        self._open: Any = None
        self._begin()

    def __call__(self, epoch: Epoch) -> bool:
        # Parameters are fetched only for callbacks that look at the fitted estimator.
        enough = self._open.call_on_fit_task_end(
            **self._facts, reconstruction_attributes=lambda: self._fitted(epoch.params())
        )
        self._open = None
        if not enough and not epoch.is_last:
            self._begin()
        return bool(enough)

    def _begin(self) -> None:
        if self._left:
            self._left -= 1
            self._open = self._context.subcontext(task_name="epoch")
            self._open.call_on_fit_task_begin(**self._facts)

    def close(self) -> None:
        """End the subtask of an epoch that never ran."""
        if self._open is not None:
            self._open.call_on_fit_task_end(estimator=self._facts["estimator"])
