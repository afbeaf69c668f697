"""Fixtures of the data's tests."""

import gc
from collections.abc import Iterator

import pytest

from data.pieces import files


@pytest.fixture
def no_file_left(frozen: None) -> Iterator[None]:
    """Fail if a test leaves a stored file behind."""
    before = set(files())
    yield
    gc.collect()
    assert set(files()) <= before
