"""First calls: one that is refused leaves an estimator as it was, to be called again with what was wrong mended."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


def all_or_nothing(partial_fit: Callable[..., Any]) -> Callable[..., Any]:
    """Have a ``partial_fit`` that raises in its first call undo what it has set: classes, columns and the like.

    scikit-learn's own leaves ``classes_`` behind, by which it then refuses the right ones, and passes for fitted until it predicts.
    """

    @wraps(partial_fit)
    def called(self: Any, *given: Any, **named: Any) -> Any:
        before = dict(vars(self))
        if any(name.endswith("_") and not name.startswith("_") for name in before):  # what was learnt stays
            return partial_fit(self, *given, **named)
        try:
            return partial_fit(self, *given, **named)
        except Exception:
            vars(self).clear()
            vars(self).update(before)
            raise

    return called
