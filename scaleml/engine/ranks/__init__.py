"""A rank on its worker: its place, its loop, what it hears and suffers; knows a group and its data, of Dask only the task."""
