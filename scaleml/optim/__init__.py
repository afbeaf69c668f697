"""Optimizers: in place on the flat vector of parameters, or on any slice or index set of it; learning-rate schedules, parameter groups."""

from scaleml.optim.adagrad import AdaGrad
from scaleml.optim.adam import Adam
from scaleml.optim.adamw import AdamW
from scaleml.optim.averaged import Averaged
from scaleml.optim.base import Optimizer, Segment
from scaleml.optim.clipping import clip
from scaleml.optim.columns import Columns
from scaleml.optim.groups import Group
from scaleml.optim.lbfgs import LBFGS
from scaleml.optim.rows import RowRate, RowSteps
from scaleml.optim.schedules import CosineAnnealing, LinearDecay, Schedule, StepDecay, Warmup
from scaleml.optim.segments import segments_of
from scaleml.optim.sgd import SGD

__all__ = [
    "LBFGS",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Averaged",
    "Columns",
    "CosineAnnealing",
    "Group",
    "LinearDecay",
    "Optimizer",
    "RowRate",
    "RowSteps",
    "Schedule",
    "Segment",
    "StepDecay",
    "Warmup",
    "clip",
    "segments_of",
]
