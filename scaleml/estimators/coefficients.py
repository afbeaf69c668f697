"""Coefficient layout: where ``coef_`` and ``intercept_`` of a linear model lie in the flat vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CoefficientLayout:
    """Where coefficients lie in the vector of parameters: used columns row by row, then the intercepts."""

    features: int
    outputs: int
    intercept: bool
    used: Any = None
    """Column numbers, where the others are empty and left out."""

    def coefficients(self, params: Any) -> dict[str, Any]:
        """Return ``coef_`` (outputs, features) and ``intercept_`` (outputs,) from the vector."""
        kept = self.features if self.used is None else len(self.used)
        split = kept * self.outputs
        coef = params[:split].reshape(kept, self.outputs).T
        if self.used is not None:
            whole = np.zeros((self.outputs, self.features), params.dtype)
            whole[:, self.used] = coef
            coef = whole
        intercept = params[split:].copy() if self.intercept else np.zeros(self.outputs, params.dtype)
        return {"coef_": np.ascontiguousarray(coef), "intercept_": intercept}

    def vector(self, coef: Any, intercept: Any, dtype: Any) -> Any:
        """Return the vector from coefficients of the shapes above."""
        coef = np.asarray(coef.toarray() if hasattr(coef, "toarray") else coef, dtype)
        coef = coef.reshape(self.outputs, self.features)
        parts = [coef.T.ravel(), np.asarray(intercept, dtype).reshape(self.outputs)]
        return np.concatenate(parts[: 2 if self.intercept else 1])
