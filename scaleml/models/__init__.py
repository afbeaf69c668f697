"""What is trained: models as sequences of blocks over one flat vector of parameters."""

from scaleml.models.base import Model, Signature
from scaleml.models.linear import LinearModel
from scaleml.models.mlp import MLP
from scaleml.models.network import Network

__all__ = ["MLP", "LinearModel", "Model", "Network", "Signature"]
