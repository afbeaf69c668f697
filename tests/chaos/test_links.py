"""Nine hundred trials of what `tests/comm/test_chaotic_links.py` tries a hundred times, and a million frames for the parser."""

from __future__ import annotations

import pytest

from chaotic_links import HARMS, OF_WHOLE_FRAMES, trials
from frame_fuzzer import fuzz

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.mark.parametrize("shared", [False, True])
def test_never_a_wrong_sum_in_nine_hundred_trials(shared: bool) -> None:
    trials(900, OF_WHOLE_FRAMES if shared else HARMS, first=10_000, shared_memory=shared)


def test_a_million_frames() -> None:
    fuzz(1_000_000, seed=1)
