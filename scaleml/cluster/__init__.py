"""Dask: the rank's task, launcher, driver, supervisor, placement, the embedded cluster, calls that cannot hang, staging of data."""
