"""One wording of each rule: the value, the rule, and what to change."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scaleml.checks import check_flag, check_integer, check_number, check_option, guess

NUMBERS = {
    "at least": (-1, {"low": 0}, "x=-1: must be a finite number at least 0; change x."),
    "greater": (0, {"low": 0, "open_low": True}, "x=0: must be a finite number greater than 0; change x."),
    "at most": (1.5, {"low": 0, "high": 1}, "x=1.5: must be a finite number at least 0 and at most 1; change x."),
    "below": (1, {"low": 0, "high": 1, "open_high": True}, "x=1: must be a finite number at least 0 and below 1; change x."),
    "any": (math.inf, {}, "x=inf: must be a finite number; change x."),
    "infinite": (-1, {"low": 0, "finite": False}, "x=-1: must be a number at least 0; change x."),
    "NaN": (math.nan, {"finite": False}, "x=nan: must be a number; change x."),
    "text": ("1", {"low": 0}, "x='1': must be a finite number at least 0; change x."),
    "bool": (True, {"low": 0}, "x=True: must be a finite number at least 0; change x."),
    "own words": (0, {"low": 1, "rule": "1 or more"}, "x=0: must be 1 or more"),
}  # fmt: skip


@pytest.mark.parametrize("case", NUMBERS)
def test_what_is_no_such_number_is_refused_with_value_and_rule(case):
    value, limits, message = NUMBERS[case]
    with pytest.raises(ValueError, match="x=") as error:
        check_number("x", value, **limits)
    assert str(error.value) == message


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int64(1)], ids=lambda value: type(value).__name__)
def test_numbers_of_any_kind_become_plain_ones(value):
    assert type(check_number("x", value, 1, 1)) is float
    if not isinstance(value, float | np.floating):
        assert type(check_integer("x", value, 1)) is int


def test_infinity_passes_where_it_may():
    assert check_number("x", math.inf, 0, finite=False) == math.inf


@pytest.mark.parametrize("value", [0, 1.0, True, "1", None])
def test_what_is_no_such_integer_is_refused(value):
    with pytest.raises(ValueError, match=r"must be an integer of at least 1; change x\."):
        check_integer("x", value, 1)


def test_switches_and_options():
    assert check_flag("x", False) is False
    with pytest.raises(ValueError, match="x=1: must be True or False"):
        check_flag("x", 1)
    check_option("x", None, ("a", None))
    with pytest.raises(ValueError, match=r"x='alphq': must be one of 'alpha', None\. Did you mean 'alpha'\?"):
        check_option("x", "alphq", ("alpha", None))
    with pytest.raises(ValueError, match="x=0: must be one of False"):
        check_option("x", 0, (False,))
    assert guess(3, ("alpha",)) == ""
