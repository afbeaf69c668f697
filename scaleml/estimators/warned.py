"""Warnings that scikit-learn gives, too: at the user's line, and within reach of the filters that programs have for scikit-learn."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from sklearn.exceptions import ConvergenceWarning

_THEIRS = ("sklearn.linear_model", "sklearn.neural_network")


def warn(estimator: Any, message: str, category: type[Warning] = ConvergenceWarning) -> None:
    """Warn of what scikit-learn's estimator of the same name would: by default, that training ended before it converged.

    ``filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")`` goes on to work after a change of the import: the warning
    comes in the name of scikit-learn's module.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=next(kind.__module__ for kind in type(estimator).__mro__ if kind.__module__.startswith(_THEIRS)),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _is_inside(module: str) -> bool:
    return module.partition(".")[0] in ("scaleml", "sklearn")
