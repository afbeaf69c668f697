"""The lab: choose, run, watch, steer and break strategies in a notebook."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self, final

from scaleml.api.named_settings import named_settings
from scaleml.api.run import Run
from scaleml.api.trial import Trial
from scaleml.cluster.cluster_name import cluster_name
from scaleml.lab import arrangement, output, roster, tree
from scaleml.lab.board import Board
from scaleml.lab.controller import Controller
from scaleml.lab.keeping import Keeping
from scaleml.lab.kept_runs import renamed, without
from scaleml.lab.orders import Clear, Enough, Go, Order, Sift, Tell
from scaleml.lab.output import Output
from scaleml.lab.publisher import Publisher
from scaleml.lab.report import living, static
from scaleml.lab.setup import Setup, check_pair, usual_workers
from scaleml.lab.steering import Steering
from scaleml.lab.toolbar import Toolbar
from scaleml.models import Model
from scaleml.optim import Optimizer
from scaleml.strategies import Strategy
from scaleml.telemetry import Comparison


@final
class Lab:
    """Compare strategies live in a notebook: choose, run, watch, steer, break them, and read which one to use.

    The runs are those of `compare`, on real workers; what the buttons do is `Run.pause`, `resume`, `stop`, `update` and
    `inject`. One lab trains at a time on one cluster: another one says who does. A cell that is run again closes the lab that it made
    before.

    Parameters
    ----------
    model : Model, optional
        What is trained. Without one the lab offers some.
    X, y : as for `compare`, optional
        The data. Without it the lab offers what scikit-learn ships.
    client : distributed.Client, optional
        Default: the current one, else an embedded cluster.
    strategies : sequence of Strategy or Trial, optional
        What is ticked at first; all others that `scaleml.strategies` exports stand below.
    workers, batch_size, epochs, target, optimizer, repeats, tune, budget
        First values of the controls; see `compare`.
    validation, seed
        As for `compare`.
    allow_kill : bool
        Whether processes may be killed that scaleml did not start.

    Attributes
    ----------
    widget : ipywidgets.Widget
        All of it, to be put into other widgets.
    repaints : int
        How often the panels were brought up to date, so far.

    Raises
    ------
    ImportError
        Without ipywidgets and bqplot, which come with the extra ``lab``.

    Examples
    --------
    >>> import scaleml
    >>> lab = scaleml.Lab()
    >>> lab  # doctest: +SKIP
    >>> lab.start().wait().verdict  # what the Run button does, and what came of it  # doctest: +SKIP
    >>> lab.close()
    """

    @named_settings()
    def __init__(
        self,
        model: Model | None = None,
        X: Any = None,
        y: Any = None,
        *,
        client: Any = None,
        strategies: Sequence[Strategy | Trial] | None = None,
        workers: int | Sequence[str] | None = None,
        batch_size: int = 256,
        epochs: int = 60,
        target: float | None = None,
        optimizer: Optimizer | None = None,
        validation: Any = 0.2,
        seed: int = 0,
        allow_kill: bool = False,
        repeats: int | None = None,
        tune: int | None = None,
        budget: float | None = None,
    ) -> None:
        check_pair(X, y)
        common = {
            "workers": usual_workers(client) if workers is None else workers,
            "batch_size": batch_size,
            "epochs": epochs,
            "target": target,
            "optimizer": optimizer,
            "repeats": repeats,
            "tune": tune,
            "budget": budget,
        }
        self._setup = Setup(model, X, y, strategies, common, {"client": client, "validation": validation, "seed": seed})
        self._subject: Any = None
        self._common: dict[str, Any] = {}
        self._kept: Any = None
        self._busy: bool | None = None
        self.repaints = 0
        self._publisher = Publisher(self._repaint)
        self._keeping = Keeping(
            lambda key, name: self._send(lambda: Sift(lambda runs: renamed(runs, key, name))),
            lambda key: self._send(lambda: Sift(lambda runs: without(runs, key))),
        )
        self._output = Output()
        self._board = Board(self._publisher.wake, self._keeping.box)
        self._controller = Controller(self._publisher.wake)
        self._steering = Steering(self._send, allow_kill, self._setup.rate.value, self._setup.batch.value)
        self._toolbar = Toolbar([self._steering.pause, self._steering.resume, self._steering.skip])
        self.run_button, self.stop_button = self._toolbar.run, self._toolbar.stop
        self.clear_button = self._toolbar.clear
        self.run_button.on_click(lambda _: self._send(self._go))
        self.stop_button.on_click(lambda _: self._send(lambda: Tell("stop")))
        self.clear_button.on_click(lambda _: self._send(Clear))
        above = [self._output.widget, self._toolbar.box, self._steering.box, self._board.notes]
        self.widget = arrangement.whole(above, self._setup.box, self._setup.summary, self._board.box)
        self._client = client
        self.cell = roster.cell()
        self._setup.when_typed(self._doubt)
        self._repaint()
        self.widget.observe(self._lost, "comm")
        for former in roster.former(self.cell):
            former._output.forget()
            former.close()
        roster.join(self)

    # What a cell can do.

    @property
    def result(self) -> Comparison:
        """All runs so far, compared: the table, the verdict, the pictures."""
        return self._controller.result

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs so far, the live one last."""
        return self._controller.runs

    @property
    def cluster(self) -> str:
        """What tells its cluster from others."""
        return cluster_name(self._client)

    @property
    def running(self) -> bool:
        """Whether a comparison is under way."""
        return self._controller.phase != "idle"

    def start(self) -> Lab:
        """Do what the Run button does; returns at once.

        Raises
        ------
        ValueError, TypeError
            For a control whose value breaks its rule.
        RuntimeError
            For a lab that was closed, and while another one trains on the same cluster.
        """
        self._controller.submit(self._go())
        return self

    def pause(self) -> None:
        """Park the ranks of the live run; returns at once."""
        self._controller.submit(Tell("pause"))

    def resume(self) -> None:
        """Go on after a pause; returns at once."""
        self._controller.submit(Tell("resume"))

    def stop(self) -> None:
        """End the live run and the comparison; returns at once."""
        self._controller.submit(Tell("stop"))

    def clear(self) -> None:
        """Forget the runs so far; returns at once."""
        self._controller.submit(Clear())

    def wait(self, timeout: float | None = None) -> Comparison:
        """Wait for the end of the comparison and return it; Ctrl-C stops it cleanly and returns what there is.

        Raises
        ------
        TimeoutError
            When it is still under way after `timeout` seconds.
        """
        try:
            if not self._controller.wait(timeout):
                raise TimeoutError(f"the comparison still runs after {timeout} s; stop() ends it")
        except KeyboardInterrupt:
            self.stop()
            self._controller.wait()
        self._keep()
        return self.result

    async def wait_async(self) -> Comparison:
        """Wait without blocking the kernel: buttons work meanwhile, on every kernel."""
        while self.running:
            await asyncio.sleep(0.05)
        self._keep()
        return self.result

    def close(self) -> None:
        """Stop what runs and end the lab: on the page what was found takes its place; `result` stays."""
        if not roster.leave(self):
            return
        self._end()
        self._leave_what_was_found()
        self._close_widgets()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # What the page shows.

    def _ipython_display_(self) -> None:
        self._output.show(self._repr_mimebundle_())

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return living(self.widget, self.result, "choose strategies and press Run." if not self.runs else "")

    def _keep(self) -> None:
        """Put what was found into the outputs of the notebook, for the saved file; on the main thread."""
        found = tuple((run, run.label, run.state) for run in self.runs)
        if self._output.shown and found and found != self._kept and not self.running and roster.holds(self):
            self._kept = found
            self._output.replace(self._repr_mimebundle_())

    def _leave_what_was_found(self) -> None:
        """Show on the page, instead of controls that no longer work, the table and the pictures."""
        if self._output.shown:
            self._output.replace(static(self.result, self._controller.error or "closed before a run."))

    # How it ends.

    def _end(self) -> None:
        """Stop what runs and end the threads."""
        self._controller.close()
        self._publisher.close()

    def _close_widgets(self) -> None:
        tree.close([self.widget, *self._setup.controls, *self._board.apart])

    def _lost(self, change: Any) -> None:
        """End where somebody else has closed the widgets, as ``Widget.close_all()`` does: not here, for it is not done yet."""
        if change["new"] is None and roster.leave(self):
            self._controller.lose("The lab's widgets were closed: its run was stopped.")
            threading.Thread(target=self._give_up, name="scaleml-lab-close", daemon=True).start()

    def _give_up(self) -> None:
        self._end()
        output.soon(self._leave_what_was_found, self._close_widgets)

    # What callbacks do: validate, queue, return.

    def _send(self, order: Callable[[], Order]) -> None:
        try:
            self._controller.submit(order())
        except (ValueError, TypeError, RuntimeError) as error:
            self._controller.say(str(error))

    def _doubt(self, _: object) -> None:
        """Say at once what is wrong with what was typed, and no longer once it is mended."""
        self._controller.say(self._setup.problem)

    def _go(self) -> Order:
        if not roster.holds(self):
            raise RuntimeError("the lab is closed: make a new one")
        if (other := roster.trains_instead(self)) is not None:
            raise RuntimeError(f"{other.said()}: stop it there, or wait for its end.")
        wish, subject = self._setup.wish(), self._setup.subject()
        fresh = not self.runs or subject != self._subject
        if fresh:
            self._subject, self._common = subject, wish.settings
        return Go(wish.told_from(self._common), fresh)

    def said(self) -> str:
        """Say what it does on its cluster."""
        whose = "Another lab" if self.cell is None else f"The lab of cell [{self.cell.number}]"
        return f"{whose} trains on this cluster ({self._controller.doing})"

    # What the publisher's thread does.

    def _repaint(self) -> bool:
        self.repaints += 1
        controller = self._controller
        busy = controller.phase != "idle"
        self._board.show(controller)
        self._keeping.show(controller.result, controller.program, busy)
        self._steering.follow(controller.live, busy)
        if busy is not self._busy:
            self._busy = busy
            self._toolbar.follow(busy)
            self._setup.offer(not busy)
        if self._board.reached is not None:
            controller.submit(Enough(self._board.reached))
        if self._output.shown and not busy:
            output.soon(self._keep)
        return busy or self._board.announcer.waits
