"""The data that both sides of a comparison train on."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np

SEED = 0
ALPHA = 1e-4


@final
@dataclass(frozen=True)
class Problem:
    """A model, its data and how it is trained. The first of `epochs` warms up; the others are timed."""

    features: int
    hidden: int
    classes: int
    rows: int
    batch: int
    epochs: int
    rate: float

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return X (rows, features) float32 and y (rows,) int32, the same at every call."""
        random = np.random.default_rng(SEED)
        x = random.standard_normal((self.rows, self.features), dtype=np.float32)
        teacher = random.standard_normal((self.features, max(1, self.classes)), dtype=np.float32)
        scores = x @ teacher
        y = scores.argmax(axis=1) if self.classes else scores[:, 0] > 0
        return x, y.astype(np.int32)

    def model(self) -> Any:
        """Return scaleml's model."""
        from scaleml.models import MLP, LinearModel

        return MLP((self.hidden,), alpha=ALPHA) if self.hidden else LinearModel(alpha=ALPHA)

    @property
    def timed_rows(self) -> int:
        """Rows that the timed epochs consume."""
        return self.rows * (self.epochs - 1)


PROBLEMS = {
    "linear": Problem(features=200, hidden=0, classes=0, rows=102_400, batch=1024, epochs=61, rate=0.1),
    "mlp": Problem(features=784, hidden=256, classes=10, rows=12_800, batch=256, epochs=21, rate=0.05),
}
