"""Topologies of an all-reduce, one file each, on any communicator; sums have the same bits on every rank and every time."""

from scaleml.comm.collectives.topology import TOPOLOGIES, choose, placement

__all__ = ["TOPOLOGIES", "choose", "placement"]
