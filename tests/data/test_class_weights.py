"""Class weights: scikit-learn's, from how often each class occurs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from scaleml.data.class_weights import ClassTally, class_weights, count

NAMES = np.array(["ant", "bee", "cat"])
CODES = np.repeat([0, 1, 2], [30, 5, 65])


@pytest.mark.parametrize("weight", ["balanced", {"bee": 7.0}, {"ant": 2, "bee": 0.5, "cat": 0}])
def test_they_are_scikit_learns(weight: Any) -> None:
    full = weight if weight == "balanced" else {**dict.fromkeys(NAMES.tolist(), 1.0), **weight}
    expected = compute_class_weight(full, classes=NAMES, y=NAMES[CODES])
    np.testing.assert_allclose(class_weights(weight, NAMES, count(CODES, NAMES)), expected)


def test_a_class_without_rows_to_train_on_weighs_1_and_the_others_as_if_it_were_not_there() -> None:
    found = class_weights("balanced", NAMES, np.array([10.0, 0.0, 30.0]))
    expected = compute_class_weight("balanced", classes=np.array([0, 2]), y=np.repeat([0, 2], [10, 30]))
    np.testing.assert_allclose(found, [expected[0], 1, expected[1]])


def test_labels_are_known_by_their_value() -> None:
    assert class_weights({6: 2.0}, np.array([5, 6]), np.ones(2)).tolist() == [1.0, 2.0]
    assert class_weights({True: 2.0}, np.array([False, True]), np.ones(2)).tolist() == [1.0, 2.0]


def test_nothing_to_weigh() -> None:
    assert class_weights(None, NAMES, np.ones(3)) is None
    assert class_weights((1.0, 2.0, 3.0), NAMES, np.ones(3)) is None


@pytest.mark.parametrize(
    ("weight", "classes", "words"),
    [
        ({"dog": 2.0}, NAMES, "names 'dog', which is none of the classes 'ant', 'bee', 'cat'"),
        ({"ant": -1.0}, NAMES, "at least 0"),
        ({"ant": np.inf}, NAMES, "at least 0"),
        ({"ant": 0, "bee": 0, "cat": 0}, NAMES, "not 0 for all rows"),
        ("balanced", None, "learns numbers: weigh rows with sample_weight"),
    ],
)
def test_what_breaks_a_rule(weight: Any, classes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        class_weights(weight, classes, None if classes is None else np.ones(3))


def test_rows_and_weights_are_counted() -> None:
    assert count(np.array([0.0, 1.0, 1.0]), np.array([3, 4])).tolist() == [1.0, 2.0]
    assert count(np.array([2, 0]), NAMES, np.array([0.5, 2.0])).tolist() == [2.0, 0.0, 0.5]


def test_the_largest_class_is_that_of_the_rows_to_train_on() -> None:
    assert ClassTally(np.array([1, 2]), np.array([9.0, 1.0])).largest_share == 0.1
    assert ClassTally(np.array([1, 2])).largest_share is None
