"""Parameters of a run: its settings by name, as loggers write them."""

from __future__ import annotations

from scaleml.runtime.plan import Plan


def parameters_of(plan: Plan) -> dict[str, object]:
    """Return a plan's settings by name."""
    return {
        "optimizer": repr(plan.optimizer),
        "learning_rate": plan.optimizer.learning_rate,
        "batch_size": plan.batch_size,
        "epochs": plan.epochs,
        "rows": plan.rows,
        "seed": plan.seed,
        "dtype": plan.dtype,
        "n_params": plan.model.size,
    }
