"""What a test machine lacks, replaced inside a page's process: a Kubernetes cluster and a Gateway's server.

Their classes take what the real ones take, and are then clusters on this machine. The real signatures are used where the packages
are installed; Kubernetes' is large, so what the page promises of it stands here, too.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any

from distributed import Client, LocalCluster

PROMISED = ("name", "namespace", "image", "n_workers", "resources", "env", "worker_command")
"""Keywords of ``dask_kubernetes.operator.KubeCluster`` (2026.3) that the page may use."""


def install() -> None:
    """Put the stand-ins where pages import from."""
    import dask_gateway

    dask_gateway.Gateway = _Gateway
    try:
        import dask_kubernetes.operator as operator
    except ImportError:
        operator = ModuleType("dask_kubernetes.operator")
        sys.modules |= {"dask_kubernetes": ModuleType("dask_kubernetes"), "dask_kubernetes.operator": operator}
        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in PROMISED]
        real, spec = inspect.Signature(parameters), None
    else:
        _, *parameters = inspect.signature(operator.KubeCluster.__init__).parameters.values()
        real, spec = inspect.Signature(parameters), operator.make_cluster_spec
        assert set(PROMISED) <= real.parameters.keys()

    def kube_cluster(*args: Any, **settings: Any) -> LocalCluster:
        """Return a cluster on this machine with as many workers, if the real one would take these arguments."""
        real.bind(*args, **settings)
        if spec is not None:
            spec(**settings)
        return _local(settings["n_workers"])

    operator.KubeCluster = kube_cluster


def _local(workers: int) -> LocalCluster:
    return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", processes=False)


class _Gateway:
    """Takes what ``dask_gateway.Gateway`` takes; its cluster is one on this machine."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        import dask_gateway.client

        inspect.signature(dask_gateway.client.Gateway.__init__).bind(self, *args, **settings)

    def cluster_options(self) -> Any:
        from dask_gateway.options import Options

        cores = {"field": "worker_cores", "label": "cores", "default": 2, "spec": {"type": "int", "min": 1}}
        return Options._from_spec([cores])

    def new_cluster(self, options: Any) -> LocalCluster:
        assert options.worker_cores == 1
        cluster = _local(0)
        cluster.get_client = lambda: Client(cluster)
        return cluster
