"""What the tests of loggers share."""

import pytest

from scaleml.callbacks import MLflow, TensorBoard, Tqdm, Wandb


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Busy machines import slowly."""
    for kind in (MLflow, TensorBoard, Tqdm, Wandb):
        monkeypatch.setattr(kind, "patience", 90.0)
