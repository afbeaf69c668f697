"""Every strategy, codec, fault and setting of the lab says what it means, from the docstrings."""

from __future__ import annotations

import pytest

from scaleml.compression import Codec
from scaleml.faults import Fault
from scaleml.lab import choices, tips
from scaleml.lab.fields import Hint
from scaleml.lab.form import Form
from scaleml.strategies import LocalSGD, Strategy
from scaleml.telemetry.glossary import WORDS
from scaleml.telemetry.ledger import PARTS

KINDS = [*choices.offered(Strategy), *choices.offered(Codec), *choices.offered(Fault)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_choice_is_explained_in_plain_text(kind):
    about = tips.about(kind)
    assert len(about) > 20
    assert "`" not in about
    assert "\n" not in about


@pytest.mark.parametrize("kind", choices.offered(Strategy), ids=lambda kind: kind.__name__)
def test_every_setting_of_a_strategy_has_a_tip_and_a_label(kind):
    for field in Form(kind)._fields:
        box = field.box if isinstance(field.box, Hint) else field.box.children[0]
        assert len(box.tooltip) > 10, field.name
        assert box.children[0].description == field.name.replace("_", " ")


def test_a_docstring_that_only_points_elsewhere_gives_way():
    class Base:
        """A base.

        Parameters
        ----------
        first, second : float
            What ``first`` and
            second are.
        """

    class Derived(Base):
        """A class.

        Parameters
        ----------
        first
            See `Base`.
        third : int
            Its own.

        Notes
        -----
        fourth : int
            No parameter.
        """

    assert tips.settings(Derived) == {
        "first": "What first and second are.",
        "second": "What first and second are.",
        "third": "Its own.",
    }
    assert tips.settings(LocalSGD)["period"].startswith("Steps between two averages")


def test_every_word_of_the_ledger_is_explained():
    assert set(PARTS) <= set(WORDS)
