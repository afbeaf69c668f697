"""The lab: choose, run, watch, steer and break strategies in a notebook."""

import warnings

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # bqscales declares traits the old way
        import bqplot as bqplot
    import ipywidgets as ipywidgets
except ImportError as error:
    raise ImportError(
        f'scaleml.Lab needs ipywidgets and bqplot ({error}): install them with `pip install ".[lab]"` in a checkout of scaleml'
    ) from error

from scaleml.lab.lab import Lab

__all__ = ["Lab"]
