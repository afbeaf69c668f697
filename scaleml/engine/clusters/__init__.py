"""Dask: the user's cluster or our own, which worker gets which rank, calls that cannot hang, events."""
