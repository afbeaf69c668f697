"""Staging: data on its way to the ranks, by Dask. Checked once, in files of the workers once, each rank's shards within its reach."""
