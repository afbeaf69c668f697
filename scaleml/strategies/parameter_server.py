"""The parameter server: workers push gradients and pull parameters at their own pace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from scaleml.strategies.base import Context, Layout, Strategy


@dataclass(frozen=True, repr=False)
class ParameterServer(Strategy):
    """Asynchronous SGD through servers that each hold a slice of the parameters.

    A worker never waits for another worker. Its gradient is applied to newer parameters than it was computed
    on; how many updates newer, its staleness, is measured for every update and stands in the history.

    ::

        worker r:  g <- mean gradient at w over r's part of the batch;  push g;  pull w
        server s:  on a push from any worker:  w[s] <- w[s] - rate * g[s];  answer w[s]

    The run ends when the servers have seen ``epochs`` times as many rows as there are: a fast worker takes more
    of the updates than a slow one.

    Parameters
    ----------
    consistency : {"async"}
        When a worker may go on: ``"async"``, at once.
    servers : int
        Over how many servers the parameters are cut, in equal slices.

    Raises
    ------
    ValueError
        For another consistency, or less than one server.

    Examples
    --------
    >>> from scaleml import ParameterServer
    >>> ParameterServer("async", servers=2).layout(workers=4)
    Layout(workers=4, servers=2)

    References
    ----------
    Dean et al., Large scale distributed deep networks, NIPS 2012.
    Li et al., Scaling distributed machine learning with the parameter server, OSDI 2014.
    """

    replicated: ClassVar[bool] = False
    synchronous: ClassVar[bool] = False
    consistency: str = "async"
    servers: int = 1

    def __post_init__(self) -> None:
        if self.consistency != "async":
            raise ValueError(
                f"consistency={self.consistency!r}: must be 'async'; for bulk synchronous training use AllReduce()"
            )
        if not isinstance(self.servers, int) or self.servers < 1:
            raise ValueError(
                f"servers={self.servers!r}: must be a positive integer, the number of slices of the parameters"
            )

    def layout(self, workers: int) -> Layout:
        """Return ``workers`` ranks that train and ``servers`` that hold parameters."""
        return Layout(workers, self.servers)

    def step(self, w: Any, state: dict[str, Any], ctx: Context) -> None:
        """Worker: push the mean gradient, pull the parameters, in place."""
        g = ctx.gradient(w)
        ctx.servers.push(g, w)
        ctx.servers.pull(w)

    def serve(self, w: Any, state: dict[str, Any], ctx: Context) -> None:
        """Server: apply one push of any worker to this server's slice, in place, and answer with the slice."""
        push = ctx.clients.receive()
        if push is not None:  # None: a worker has left
            ctx.optimizer.apply(w, push.gradient, state)
            ctx.clients.answer(push, w)
