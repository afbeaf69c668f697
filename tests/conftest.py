"""Fixtures for all tests."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

import leaks as guards


@pytest.fixture
def leaks() -> Callable[..., AbstractContextManager[None]]:
    """Make guards: ``with leaks(): ...`` fails if the block leaves a thread, a socket or a segment behind."""
    return guards.guard


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Guard the whole test, set-up of its other fixtures excluded."""
    with guards.guard():
        yield
