"""Data on its way to the ranks: checked once, placed once, staged where Dask holds it; and back, as lazy predictions."""
