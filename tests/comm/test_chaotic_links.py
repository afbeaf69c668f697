"""Whatever a link does to frames: the right sum or an error, never a wrong sum; and a parser that nothing surprises."""

from __future__ import annotations

import pytest

from chaotic_links import HARMS, OF_WHOLE_FRAMES, SIZES, WAYS, trial, trials
from frame_fuzzer import fuzz


def test_never_a_wrong_sum_over_tcp() -> None:
    trials(150, HARMS, shared_memory=False)


def test_never_a_wrong_sum_within_a_host() -> None:
    """Where payloads have no sums, for memory is copied to memory: whole frames, and their headers."""
    trials(100, OF_WHOLE_FRAMES, first=5_000, shared_memory=True)


@pytest.mark.parametrize("shared", [True, False])
def test_without_harm_nothing_is_refused(shared: bool) -> None:
    for seed in range(len(WAYS) * len(SIZES)):
        assert trial(seed, (), shared_memory=shared) == (False, [])


def test_two_thousand_frames() -> None:
    fuzz(2_000, seed=0)
