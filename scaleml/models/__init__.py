"""Models: what is trained. Each is some settings and the flat model that they build, all of whose parameters are one vector."""

from scaleml.models.base import Model, Signature
from scaleml.models.flat_model import FlatModel
from scaleml.models.linear import LinearModel
from scaleml.models.mlp import MLP
from scaleml.models.network import Network

__all__ = ["MLP", "FlatModel", "LinearModel", "Model", "Network", "Signature"]
