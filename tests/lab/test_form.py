"""Controls come from a dataclass's fields, whatever the dataclass: nothing in the lab knows one by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import ipywidgets as widgets
import pytest

import scaleml
from scaleml import strategies
from scaleml.compression import Codec, Int8, TopK
from scaleml.faults import Fault
from scaleml.lab import choices
from scaleml.lab.form import Form
from scaleml.optim import SGD, Adam, CosineAnnealing, Group, Optimizer
from scaleml.strategies import LocalSGD, Strategy


@dataclass(frozen=True)
class Everything(Strategy):
    """A strategy with a field of every kind.

    Parameters
    ----------
    topology : {"ring", "tree"}
        How ranks are arranged.
    """

    count: int = 3
    rate: float = 0.5
    loud: bool = False
    perhaps: bool | None = None
    kind: Literal["one", "two"] = "one"
    topology: str = "ring"
    name: str = "x"
    limit: int | None = None
    share: float | None = None
    choice: Literal["a", "b"] | None = None
    sizes: tuple[int, ...] = (2, 3)
    compression: Codec | None = None
    outer: Optimizer = SGD(0.7)  # noqa: RUF009  frozen

    def step(self, w, state, ctx):
        raise NotImplementedError


CHANGED = Everything(5, 0.25, True, False, "two", "tree", "y", 7, 0.125, "b", (4, 5, 6), TopK(0.5), Adam(0.01))


def field(form, name):
    return next(field for field in form._fields if field.name == name)


def test_a_form_gives_back_what_it_was_made_of():
    assert Form(Everything).value() == Everything()
    assert Form(Everything, CHANGED).value() == CHANGED


def test_a_form_shows_another_value():
    form = Form(Everything)
    form.show(CHANGED)
    assert form.value() == CHANGED
    form.show(Everything())
    assert form.value() == Everything()


def test_every_field_has_a_control():
    assert [field.name for field in Form(Everything)._fields] == list(Everything.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kind", ["one", "two"]),
        ("topology", ["ring", "tree"]),
        ("choice", ["a", "b", "none"]),
    ],
)
def test_choices_come_from_literals_and_docstrings(name, options):
    menu = field(Form(Everything), name).box.children[0]
    assert list(menu.options) == options


def test_a_nested_choice_offers_what_the_package_exports():
    menu, pages = field(Form(Everything), "compression").box.children
    menu = menu.children[0]
    assert menu.options == ("none", *(kind.__name__ for kind in choices.offered(Codec)))
    assert len(pages.children) == len(menu.options)
    menu.index = menu.options.index("Int8")
    form = Form(Everything)
    field(form, "compression").box.children[0].children[0].value = "Int8"
    assert form.value().compression == Int8()


def test_a_schedule_is_chosen_by_name_and_one_that_is_an_object_stays():
    assert Form(SGD, SGD(0.1, schedule="invscaling", weight_decay=0.5)).value().schedule == "invscaling"
    given = SGD(0.1, schedule=CosineAnnealing(), groups=[Group("*bias", learning_rate=0.2)])
    assert Form(SGD, given).value() == given


def test_what_the_user_types_is_refused_with_its_name():
    form = Form(Everything)
    field(form, "limit").box.children[0].value = "many"
    with pytest.raises(ValueError, match="limit 'many': must be a whole number"):
        form.value()


def test_the_dataclass_has_the_last_word():
    form = Form(LocalSGD)
    field(form, "period").box.children[0].value = "0"
    with pytest.raises(ValueError, match="period=0: must be a positive integer"):
        form.value()


@pytest.mark.parametrize("kind", choices.offered(Strategy), ids=lambda kind: kind.__name__)
def test_every_exported_strategy_has_a_form(kind):
    assert choices.startable(kind), "the lab offers what can be made without arguments"
    form = Form(kind)
    assert form.value() == kind()
    assert {field.name for field in form._fields} == {field.name for field in choices.settings(kind)}


@pytest.mark.parametrize("kind", choices.offered(Fault), ids=lambda kind: kind.__name__)
def test_every_fault_can_be_made(kind):
    with scaleml.Lab() as lab:
        made = lab._steering.faults.get(kind.__name__)
        fault = kind(rank=1, step=0, **made.read()) if made else kind(rank=1, step=0)
    assert fault.rank == 1


def test_a_new_strategy_appears_without_touching_the_lab(monkeypatch):
    monkeypatch.setattr(strategies, "Everything", Everything, raising=False)
    monkeypatch.setattr(strategies, "__all__", [*strategies.__all__, "Everything"])
    with scaleml.Lab() as lab:
        rows = {row.kind.__name__: row for row in lab._setup.rows}
        assert not rows["Everything"].tick.value
        assert "Everything" in lab._steering.strategies
    with scaleml.Lab(strategies=[CHANGED]) as lab:
        first = lab._setup.rows[0]
        assert first.tick.value
        assert first.form.value() == CHANGED
        assert [row.tick.value for row in lab._setup.rows].count(True) == 1


def test_controls_can_be_switched_off():
    controls = Form(Everything).controls
    assert len(controls) >= len(Everything.__dataclass_fields__)
    assert all(isinstance(control, widgets.Widget) for control in controls)
