"""Tests of a framework are there where the framework is."""

import os
from importlib.util import find_spec

import pytest

collect_ignore_glob = [f"test_{name}*.py" for name in ("torch", "jax", "keras") if not find_spec(name)]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As ranks of a run have: tiny modules are slower on several."""
    if find_spec("torch") and os.environ["KERAS_BACKEND"] == "torch":
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)
    else:
        yield
