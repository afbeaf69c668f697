"""Optimizers: in place on the flat vector of parameters, or on any slice or index set of it."""

from scaleml.optim.adagrad import AdaGrad
from scaleml.optim.adam import Adam
from scaleml.optim.averaged import Averaged
from scaleml.optim.base import Optimizer, clip
from scaleml.optim.columns import Columns
from scaleml.optim.lbfgs import LBFGS
from scaleml.optim.rows import RowRate, RowSteps
from scaleml.optim.sgd import SGD

__all__ = ["LBFGS", "SGD", "AdaGrad", "Adam", "Averaged", "Columns", "Optimizer", "RowRate", "RowSteps", "clip"]
