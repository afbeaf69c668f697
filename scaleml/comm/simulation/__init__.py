"""Simulation: what the simulated communicator is made of: costs, a scheduler of ranks on virtual clocks, links, operations."""
