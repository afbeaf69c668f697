"""One file a strategy, each reading like its paper's pseudocode."""

from scaleml.strategies.allreduce import AllReduce
from scaleml.strategies.base import Layout, Strategy
from scaleml.strategies.gossip import Gossip
from scaleml.strategies.hogwild import Hogwild
from scaleml.strategies.local_sgd import LocalSGD
from scaleml.strategies.parameter_server import ParameterServer
from scaleml.strategies.serial import Serial

__all__ = ["AllReduce", "Gossip", "Hogwild", "Layout", "LocalSGD", "ParameterServer", "Serial", "Strategy"]
