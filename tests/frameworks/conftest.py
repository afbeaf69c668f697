"""Tests of a framework are there where the framework is."""

import os
from importlib.util import find_spec

import pytest

# A process has one backend; the other one is tested in a process of its own.
os.environ.setdefault("KERAS_BACKEND", "torch")

collect_ignore_glob = [] if find_spec("torch") else ["test_torch_*.py"]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As ranks of a run have: tiny modules are slower on several."""
    if find_spec("torch"):
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)
    else:
        yield
