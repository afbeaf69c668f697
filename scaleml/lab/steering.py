"""Steering controls: what can be done to a run while it lives. Change its settings, break its workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import ipywidgets as widgets

from scaleml import faults
from scaleml.api.run import Run
from scaleml.lab import choices, entry, tips
from scaleml.lab.fields import Pages, auto, button, labelled
from scaleml.lab.form import Form
from scaleml.lab.orders import Break, Order, Tell, Update
from scaleml.strategies import Strategy

HIDDEN = ("rank", "step", "until")
"""Fields of a fault that the lab fills in: the rank chosen, from now on, until the end."""
FIRST = {"factor": 4.0, "seconds": 0.05, "bytes_per_second": 1e6, "to": 0}
"""What the settings of a fault are at first."""
RANK = "Which worker's rank it happens to."
RATE = "A new learning rate, for all ranks from the same step on."
BATCH = "Another global batch, in rows, for all ranks from the same step on."
STRATEGY = (
    "Another strategy, or other settings of this one: the run goes on with the same parameters and place in the data."
)
FAULT = "What goes wrong: " + " ".join(
    f"{kind.__name__}: {tips.about(kind)}" for kind in choices.offered(faults.Fault) if kind is not faults.Kill
)


@final
class Steering:
    """Controls of the live run.

    Parameters
    ----------
    send : callable
        Takes what makes an order, and sees to it.
    allow_kill : bool
        Whether workers may be killed that scaleml did not start.
    rate, batch : object
        Shown until a run brings its own.
    """

    def __init__(
        self, send: Callable[[Callable[[], Order]], None], allow_kill: bool, rate: object, batch: object
    ) -> None:
        self._allow_kill = allow_kill
        self._run: Run | None = None
        self.pause = button("Pause", "Park all ranks at one step boundary", "pause", disabled=True)
        self.resume = button("Resume", "Go on after a pause", "play", disabled=True)
        self.skip = button(
            "Skip",
            "End this run and go on with the next; the comparison has it as stopped",
            "step-forward",
            disabled=True,
        )
        self.rate = entry.Entry(entry.positive("learning rate"), rate)
        self.batch = entry.Entry(entry.whole("batch"), batch)
        self.change_rate = button("Set", "From the next common step on", disabled=True)
        self.change_batch = button("Set", "From the next common step on", disabled=True)
        self.strategies = {kind.__name__: Form(kind) for kind in choices.offered(Strategy) if choices.startable(kind)}
        self.strategy, self._pages = _pages(self.strategies)
        self.change_strategy = button("Set", "From the next common step on", disabled=True)
        offered = [kind for kind in choices.offered(faults.Fault) if kind is not faults.Kill]  # that has its own button
        self.faults = {kind.__name__: Form(kind, leave_out=HIDDEN, first=FIRST) for kind in offered}
        self.fault, self._fault_pages = _pages(self.faults)
        self.fault.value = "Slow"
        self._fault_pages.selected_index = self.fault.index
        self.rank = widgets.Dropdown(options=[0], layout=auto())
        self.inject = button("Inject", "Break it for real", "bolt", disabled=True)
        self.kill = button("Kill", "SIGKILL of this rank's process", "times", "danger", disabled=True)
        self.pause.on_click(lambda _: send(lambda: Tell("pause")))
        self.resume.on_click(lambda _: send(lambda: Tell("resume")))
        self.skip.on_click(lambda _: send(lambda: Tell("skip")))
        self.change_rate.on_click(lambda _: send(lambda: Update({"learning_rate": self.rate.read()})))
        self.change_batch.on_click(lambda _: send(lambda: Update({"batch_size": self.batch.read()})))
        self.change_strategy.on_click(lambda _: send(self._new_strategy))
        self.inject.on_click(lambda _: send(self._fault))
        self.kill.on_click(lambda _: send(self._killing))
        # What comes and goes stands behind the buttons: they stay where they are, whatever is chosen.
        faulty = [labelled("rank", self.rank, RANK), labelled("fault", self.fault, FAULT), self.inject, self.kill]
        other = [labelled("strategy", self.strategy, STRATEGY), self.change_strategy]
        rows = [
            _group(*faulty, self._fault_pages),
            _group(labelled("learning rate", self.rate, RATE), self.change_rate),
            _group(labelled("batch", self.batch, BATCH), self.change_batch),
            _group(*other, self._pages),
        ]
        wrap = widgets.Layout(flex_flow="row wrap", align_items="center", width="100%")
        head = widgets.HTML('<span class="scaleml-head">while it runs</span>')
        self.box = widgets.VBox([head, widgets.HBox(rows, layout=wrap)], layout=widgets.Layout(display="none"))
        self.box.add_class("scaleml-card")

    def follow(self, run: Run | None, busy: bool) -> None:
        """Stand for this run, or for none, and be seen while there are any; called by the publisher's thread."""
        self.box.layout.display = None if busy else "none"
        live = run is not None
        paused = run is not None and run.state == "paused"
        for control in (self.change_rate, self.change_batch, self.change_strategy, self.inject, self.kill):
            _switch(control, live)
        _switch(self.pause, live and not paused)
        _switch(self.resume, paused)
        _switch(self.skip, live)
        if run is not None and run is not self._run:
            self._run = run
            self._adopt(run)

    def _adopt(self, run: Run) -> None:
        """Show what the run was started with."""
        self.rate.value = entry.shown(run.plan.optimizer.learning_rate)
        self.batch.value = run.plan.batch_size
        if len(self.rank.options) != run.workers:
            self.rank.options = list(range(run.workers))
            self.rank.value = run.workers - 1
        name = type(run.plan.strategy).__name__
        if name in self.strategies and self.strategies[name].kind is type(run.plan.strategy):
            self.strategy.value = name
            self._pages.selected_index = self.strategy.index
            self.strategies[name].show(run.plan.strategy)

    def _new_strategy(self) -> Order:
        return Update({"strategy": self.strategies[self.strategy.value].value()})

    def _killing(self) -> Order:
        return Break(faults.Kill(rank=self.rank.value, step=0, allow_kill=self._allow_kill))

    def _fault(self) -> Order:
        form = self.faults[self.fault.value]
        return Break(form.kind(rank=self.rank.value, step=0, **form.read()))


def _group(*parts: widgets.Widget) -> widgets.Widget:
    """Keep controls together with their button."""
    group = widgets.HBox(list(parts))
    group.add_class("scaleml-group")
    return group


def _pages(forms: dict[str, Form]) -> tuple[Any, Any]:
    menu = widgets.Dropdown(options=list(forms), layout=auto())
    return menu, Pages(menu, [form.box for form in forms.values()])


def _switch(control: Any, on: bool) -> None:
    if control.disabled == on:
        control.disabled = not on
