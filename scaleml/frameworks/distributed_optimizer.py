"""Data parallelism for a PyTorch loop of one's own: an optimizer whose steps are on gradients averaged over the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from scaleml.frameworks.current_rank import communicator as current_communicator
from scaleml.frameworks.rank_communicator import RankCommunicator

if TYPE_CHECKING:
    import torch

Optimizer = TypeVar("Optimizer", bound="torch.optim.Optimizer")

_MARK: Final = "_scaleml_averages"


def DistributedOptimizer(
    optimizer: Optimizer, *, broadcast: bool = True, communicator: RankCommunicator | None = None
) -> Optimizer:
    """Have any of PyTorch's optimizers average the gradients over the ranks in each ``step()``.

    With a loss that is a mean over the batch, N ranks with as many rows each take the step of one process on all their rows.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Changed, and returned: learning rate schedules, gradient scalers and ``state_dict`` go on as they did. A closure, as L-BFGS needs,
        returns the mean of the losses.
    broadcast : bool
        Whether all ranks are given rank 0's parameters now. Buffers, such as BatchNorm's, are no parameters:
        ``scaleml.communicator().broadcast(module.state_dict())`` has all.
    communicator : RankCommunicator, optional
        Among whom. Default: all ranks.

    Returns
    -------
    torch.optim.Optimizer
        The same.

    Raises
    ------
    ValueError
        For an optimizer that averages already, and in ``step()`` for sparse gradients.

    Notes
    -----
    A parameter that has a gradient on some ranks only counts as 0 on the others; one that has none anywhere is left alone. To clip
    averaged gradients use `average_gradients` and an optimizer as it is. Gradients may be accumulated over several backward passes.

    References
    ----------
    Sergeev, Del Balso (2018), Horovod: fast and easy distributed deep learning in TensorFlow, https://arxiv.org/abs/1802.05799

    Examples
    --------
    >>> import torch
    >>> from scaleml.comm import inprocess
    >>> def program(links):
    ...     ranks = RankCommunicator(links)
    ...     w = torch.nn.Parameter(torch.tensor([float(links.rank)]))
    ...     optimizer = DistributedOptimizer(torch.optim.SGD([w], lr=0.5), communicator=ranks)
    ...     (w * (1 + links.rank)).sum().backward()
    ...     optimizer.step()
    ...     return w.item()
    >>> inprocess.run(2, program)
    [-0.75, -0.75]
    """
    ranks = current_communicator() if communicator is None else communicator
    if getattr(optimizer, _MARK, False):
        raise ValueError("this optimizer averages its gradients over the ranks already: wrap it once")
    setattr(optimizer, _MARK, True)
    if broadcast:
        for parameter in _parameters(optimizer):
            ranks.broadcast(parameter.detach())

    def before_step(
        stepped: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        own, given = args[:1], args[1:]  # PyTorch counts the optimizer among the arguments
        closure = given[0] if given else kwargs.get("closure")
        if closure is None:
            average_gradients(_parameters(stepped), ranks)
            return None
        averaged = _averaged(closure, stepped, ranks)
        return ((*own, averaged, *given[1:]), kwargs) if given else (own, {**kwargs, "closure": averaged})

    optimizer.register_step_pre_hook(before_step)
    return optimizer


def average_gradients(parameters: Iterable[torch.Tensor], communicator: RankCommunicator | None = None) -> None:
    """Replace the gradients of parameters by their mean over the ranks: one all-reduce for each dtype.

    Parameters
    ----------
    parameters : iterable of torch.Tensor
        The same on all ranks, in the same order: ``module.parameters()``.
    communicator : RankCommunicator, optional
        Among whom. Default: all ranks of the program.

    Raises
    ------
    ValueError
        For sparse gradients.
    """
    import torch

    ranks = current_communicator() if communicator is None else communicator
    by_dtype: dict[torch.dtype, list[torch.Tensor]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            by_dtype.setdefault(parameter.dtype, []).append(parameter)
    for dtype, those in by_dtype.items():
        if any(parameter.grad is not None and parameter.grad.is_sparse for parameter in those):
            raise ValueError("sparse gradients cannot be averaged over ranks: use torch.nn.Embedding(sparse=False)")
        # Behind the gradients: who has one. All of it is one vector, summed once.
        ends = np.cumsum([parameter.numel() for parameter in those]).tolist()
        sums = torch.zeros(ends[-1] + len(those), dtype=_summed(dtype))
        flat, has = sums[: ends[-1]], sums[ends[-1] :]
        for index, (parameter, end) in enumerate(zip(those, ends, strict=True)):
            if parameter.grad is not None:
                flat[end - parameter.numel() : end] = parameter.grad.reshape(-1)
                has[index] = 1
        ranks.allreduce(sums)
        flat /= ranks.size
        for index, (parameter, end) in enumerate(zip(those, ends, strict=True)):
            if has[index].real > 0:
                mean = flat[end - parameter.numel() : end].view(parameter.shape)
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                parameter.grad.copy_(mean)


def _averaged(
    closure: Callable[[], Any], optimizer: torch.optim.Optimizer, ranks: RankCommunicator
) -> Callable[[], Any]:
    def averaged() -> Any:
        loss = closure()
        average_gradients(_parameters(optimizer), ranks)
        return ranks.allreduce(loss.detach().clone() if hasattr(loss, "detach") else loss, "mean")

    return averaged


def _summed(dtype: torch.dtype) -> torch.dtype:
    """Return what is summed for gradients of a dtype: single precision for half."""
    import torch

    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
