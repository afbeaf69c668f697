"""tqdm: a progress bar a run, in a terminal and in a notebook."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from scaleml.callbacks.base import Callback, Evaluation, FollowedRun
from scaleml.callbacks.missing import imported
from scaleml.callbacks.scalars import Scalars, name_of
from scaleml.escaping import printable
from scaleml.telemetry.formatting import number

if TYPE_CHECKING:
    from scaleml.callbacks.base import Rows


@final
@dataclass(frozen=True)
class Tqdm(Callback):
    """A bar of `tqdm <https://tqdm.github.io>`_ over the rows to train on, with the losses behind it.

    Parameters
    ----------
    leave : bool
        Whether bars stay when their run is over.
    file : text stream, optional
        Where to write; standard error by default, and in a notebook a widget.

    Raises
    ------
    ImportError
        Where tqdm is not installed.

    Examples
    --------
    >>> import scaleml
    >>> from scaleml.callbacks import Tqdm
    >>> run = scaleml.train(scaleml.LinearModel(), X, y, callbacks=[Tqdm()])  # doctest: +SKIP
    """

    shows_progress: ClassVar[bool] = True

    leave: bool = True
    file: Any = None

    def __post_init__(self) -> None:
        imported("tqdm.auto", "tqdm", "Tqdm()")

    def for_run(self, run: FollowedRun) -> Callback:
        """Return the bar of this run."""
        return _Bar(self)


@final
@dataclass
class _Bar(Callback):
    settings: Tqdm
    facts: dict[str, str] = field(default_factory=dict)

    def on_start(self, run: FollowedRun) -> None:
        automatic = imported("tqdm.auto", "tqdm", "Tqdm()").tqdm
        # Without tqdm's thread that looks after all bars of a process: this one is told ten times a second.
        kind = type("Bar", (automatic,), {"monitor_interval": 0})
        self.scalars = Scalars(run)
        self.bar = kind(
            total=run.total_samples,
            desc=printable(name_of(run)),
            unit="row",
            unit_scale=True,
            leave=self.settings.leave,
            file=self.settings.file,
            mininterval=0.0,
        )

    def on_rows(self, run: FollowedRun, rows: Rows) -> None:
        loss = self.scalars.of_rows(rows).get("train/loss")
        if loss is not None:
            self._show(loss=number(loss))
        self.bar.update(self.scalars.samples - self.bar.n)

    def on_evaluation(self, run: FollowedRun, evaluation: Evaluation) -> None:
        self._show(**{"held-out": number(evaluation.loss)})

    def on_end(self, run: FollowedRun) -> None:
        if run.state != "finished":
            self.bar.set_description_str(f"{printable(name_of(run))}: {run.state}", refresh=False)
        self.bar.refresh()
        self.bar.close()

    def _show(self, **facts: str) -> None:
        self.facts.update(facts)
        self.bar.set_postfix(
            {name: self.facts[name] for name in ("loss", "held-out") if name in self.facts}, refresh=False
        )
