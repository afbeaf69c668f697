"""In which steps gradient noise is measured."""

from __future__ import annotations

import numpy as np
import pytest

from scaleml.runtime.measured_steps import measuring_interval, next_measured


@pytest.mark.parametrize("interval", [1, 4, 16, 256])
def test_one_step_is_measured_in_each_interval(interval):
    step, found = -1, []
    while len(found) < 200:
        step = next_measured(step, interval)
        found.append(step)
    assert [step // interval for step in found] == list(range(200))
    places = np.bincount([step % interval for step in found], minlength=interval)
    assert places.max() <= 2 * max(1, 200 / interval), (
        "an epoch as long as the interval would show the same batch each time"
    )
    assert all(next_measured(at, interval) == min(step for step in found if step > at) for at in range(0, found[-1], 7))


def test_long_steps_are_measured_often_and_short_ones_densely_at_the_start():
    assert measuring_interval(10**6, 512, False, 0, is_summed=True) <= 8
    assert measuring_interval(10**6, 1, True, 0) >= 64
    assert measuring_interval(10, 10, False, 0) == 4
    assert 64 <= measuring_interval(10, 10, False, 10**6) <= 512
