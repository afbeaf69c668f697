"""Collectives: ways to talk of all ranks at once, one file each; sums have the same bits on every rank and every time."""

from scaleml.comm.collectives.topology import TOPOLOGIES, choose, placement

__all__ = ["TOPOLOGIES", "choose", "placement"]
