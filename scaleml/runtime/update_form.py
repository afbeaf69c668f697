"""The form of updates on a rank that trains: whole vectors, or what a batch touches; it may change with strategy and batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import final

from scaleml.arrays import Array
from scaleml.models.flat_model import Sparse
from scaleml.runtime.gradient import Gradient
from scaleml.runtime.optimizer_step import OptimizerStep
from scaleml.runtime.plan import Plan
from scaleml.runtime.sparse_gradient import SparseGradients
from scaleml.runtime.train_state import TrainState
from scaleml.runtime.weight_decay import WeightDecay
from scaleml.strategies import Strategy
from scaleml.strategies.context import SparseGradient

Compute = Callable[[Array], Array | SparseGradient]


@final
class UpdateForm:
    """Brings about what `sparsity` decides.

    Parameters
    ----------
    plan : Plan
        The run.
    gradients : Gradient
        Where the rank is.
    compute : callable
        Computes whole gradients.
    optimizer : OptimizerStep
        What applies gradients of either form.
    state : TrainState
        Whose parameters they are.

    Attributes
    ----------
    sparse : SparseGradients or None
        What computes the gradients, where they are sparse.
    """

    def __init__(
        self, plan: Plan, gradients: Gradient, compute: Compute, optimizer: OptimizerStep, state: TrainState
    ) -> None:
        self._plan = plan
        self._gradients = gradients
        self._compute = compute
        self._optimizer = optimizer
        self._state = state
        self._made: SparseGradients | None = None
        self._decay: WeightDecay | None = None
        self._strategy = plan.strategy
        self.sparse: SparseGradients | None = None

    def follow(self, strategy: Strategy | None = None) -> Compute:
        """Go on in the form for a strategy, or the one in force, and the batch size in force: all ranks have the same of both.

        Returns what computes a gradient in that form, see `Context.touched_gradient`.
        """
        strategy = self._strategy = strategy or self._strategy
        plan, gradients, optimizer = self._plan, self._gradients, self._optimizer
        plan = replace(plan, strategy=strategy, batch_size=gradients.batch_size)
        sparse, decay, model = None, None, plan.model
        if plan.sparse:
            sparse = self._made = self._made or SparseGradients(plan, gradients, strategy.shares_memory)
            sparse.forget()
            if strategy.replicated and not plan.why_dense_updates and isinstance(model, Sparse) and model.l2:
                decay = WeightDecay(self._state.arrays, model.columns * model.width, model.l2)
            sparse.decay = decay
        if decay is None:
            self.end()
        self.sparse, self._decay = sparse, decay
        optimizer.decay = decay
        optimizer.touches = plan.sparse and not plan.why_dense_updates and strategy.replicated
        optimizer.whole = gradients.whole if plan.why_dense_updates and strategy.replicated else None
        return self._compute if sparse is None else sparse.compute

    def parameters(self) -> Array:
        """Return what the rank holds of the parameters, (P,): to be read only."""
        w = self._state.params
        return w if self._decay is None else self._decay.values(w)

    def end(self) -> None:
        """Leave the parameters in the state, and nothing beside them."""
        if self._decay is not None:
            self._decay.end(self._state.params)
