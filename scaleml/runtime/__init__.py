"""A rank, without Dask: its state, clock, grid, loops, gradient, optimizer step, commands, faults, evaluation, parameter server."""
