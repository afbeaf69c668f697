"""Runs on Dask: placing ranks, their loops, the supervisor, the run a user holds."""
