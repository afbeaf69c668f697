"""Ways to sum a vector over the ranks, one file each; all give the same bits on every rank and every time."""

from scaleml.comm.reducing.choice import choose, placement
from scaleml.comm.reducing.table import ALGORITHMS, Algorithm

__all__ = ["ALGORITHMS", "Algorithm", "choose", "placement"]
