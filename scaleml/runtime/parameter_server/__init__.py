"""A parameter server's conversation: what workers and servers tell each other, and the rule of who waits for whom."""

from scaleml.runtime.parameter_server.client import ParameterServerClient
from scaleml.runtime.parameter_server.server_optimizer import DenseServerOptimizer, SparseServerOptimizer
from scaleml.runtime.parameter_server.worker_connections import WorkerConnections

__all__ = ["DenseServerOptimizer", "ParameterServerClient", "SparseServerOptimizer", "WorkerConnections"]
