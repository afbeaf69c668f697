"""Callbacks: who is told of a run while it goes on. `Callback` to derive from, and loggers that write what they are told elsewhere."""

from scaleml.callbacks.base import Callback, Evaluation
from scaleml.callbacks.mlflow import MLflow
from scaleml.callbacks.tensorboard import TensorBoard
from scaleml.callbacks.tqdm import Tqdm
from scaleml.callbacks.wandb import Wandb

__all__ = ["Callback", "Evaluation", "MLflow", "TensorBoard", "Tqdm", "Wandb"]
