"""TensorBoard: event files of each run, in a folder of its own, for TensorBoard and all that reads them."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from datetime import datetime
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from scaleml.callbacks.base import Callback, Evaluation, FollowedRun
from scaleml.callbacks.missing import imported
from scaleml.callbacks.scalars import Scalars, name_of
from scaleml.telemetry.history import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scaleml.callbacks.base import Rows
    from scaleml.telemetry.comparison import Comparison

_USUAL = str | int | float | bool


@final
@dataclass(frozen=True)
class TensorBoard(Callback):
    """Writes `TensorBoard <https://www.tensorflow.org/tensorboard>`_'s event files; neither TensorFlow nor PyTorch is needed.

    Losses, scores, rows a second, staleness and the shares of the ranks' time are scalars over steps; the settings are
    hyperparameters; changes in mid-run, the summary at the end and a comparison's verdict and table are text.

    Parameters
    ----------
    log_dir : path
        A folder on this machine. Each run gets a folder in it, called as the run, with a number if there is one of that name.

    Raises
    ------
    ImportError
        Where tensorboard is not installed.

    Examples
    --------
    >>> import scaleml
    >>> from scaleml.callbacks import TensorBoard
    >>> run = scaleml.train(scaleml.LinearModel(), X, y, callbacks=[TensorBoard("logs")])  # doctest: +SKIP
    """

    log_dir: str | PathLike[str]

    def __post_init__(self) -> None:
        Path(fspath(self.log_dir))  # what is no path is refused now
        _part("summary.writer.event_file_writer")

    def for_run(self, run: FollowedRun) -> Callback:
        """Return what writes the files of this run."""
        return _Events(Path(self.log_dir))

    def on_comparison_end(self, comparison: Comparison) -> None:
        """Write the verdict and the table as text, in a folder of the comparison's own."""
        folder = fresh(Path(self.log_dir), f"comparison {comparison.name}")
        writer = _part("summary.writer.event_file_writer").EventFileWriter(str(folder))
        text = _part("plugins.text.summary_v2").text_pb
        head, cells, note = comparison.lines()
        verdict = "\n\n".join([f"**{comparison.verdict.headline}**", *comparison.verdict.reasons])
        _write(writer, text("verdict", verdict), 0)
        _write(writer, text("table", f"{markdown(head, cells)}\n\n{note}"), 0)
        writer.close()


@final
class _Events(Callback):
    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir

    def on_start(self, run: FollowedRun) -> None:
        folder = fresh(self._log_dir, name_of(run))
        self._writer = _part("summary.writer.event_file_writer").EventFileWriter(str(folder))
        self._scalars = Scalars(run)
        settings = {name: _plain(value) for name, value in run.parameters.items()}
        hparams = _part("plugins.hparams.summary_v2").hparams_pb(settings, str(folder), _now())
        self._write(hparams, 0)

    def on_rows(self, run: FollowedRun, rows: Rows) -> None:
        self._plot(self._scalars.of_rows(rows), self._scalars.step)

    def on_evaluation(self, run: FollowedRun, evaluation: Evaluation) -> None:
        self._plot(self._scalars.of_evaluation(evaluation), int(evaluation.step))

    def on_change(self, run: FollowedRun, change: Change) -> None:
        step = self._scalars.step if change.step < 0 else change.step
        self._write(_part("plugins.text.summary_v2").text_pb("changes", change.text), step)

    def on_end(self, run: FollowedRun) -> None:
        text = f"state: {run.state}\n\n" + "\n".join(f"    {line}" for line in run.summary().splitlines())
        self._write(_part("plugins.text.summary_v2").text_pb("summary", text), self._scalars.step)
        self._end_session(failed=run.state == "failed")
        self._writer.close()

    def _plot(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._write(_part("plugins.scalar.summary_v2").scalar_pb(name, value), step)

    def _end_session(self, failed: bool) -> None:
        api, metadata = _part("plugins.hparams.api_pb2"), _part("plugins.hparams.metadata")
        kind = _part("plugins.hparams.plugin_data_pb2")
        status = api.STATUS_FAILURE if failed else api.STATUS_SUCCESS
        end = kind.HParamsPluginData(session_end_info=kind.SessionEndInfo(status=status, end_time_secs=_now()))
        summary = _part("compat.proto.summary_pb2").Summary()
        summary.value.add(
            tag=metadata.SESSION_END_INFO_TAG,
            metadata=metadata.create_summary_metadata(end),
            tensor=metadata.NULL_TENSOR,
        )
        self._write(summary, 0)

    def _write(self, summary: Any, step: int) -> None:
        _write(self._writer, summary, step)


def _write(writer: Any, summary: Any, step: int) -> None:
    writer.add_event(_part("compat.proto.event_pb2").Event(wall_time=_now(), step=step, summary=summary))


def markdown(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    r"""Return a table as TensorBoard's texts have them.

    Examples
    --------
    >>> print(markdown(("run", "loss"), [("a|b", "0.2")]))
    | run | loss |
    | --- | --- |
    | a\|b | 0.2 |
    """
    rows = [[cell.replace("|", r"\|") for cell in row] for row in (head, ["---"] * len(head), *cells)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fresh(parent: Path, name: str) -> Path:
    """Make a folder with a name that can be read, and a number where there is one of that name."""
    readable = re.sub(r"[^\w(),.=+ -]+", "_", name).strip(". ")[:120] or "run"
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = parent / (readable if number == 1 else f"{readable} {number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("numbers do not end")


def _part(name: str) -> Any:
    return imported(f"tensorboard.{name}", "tensorboard", "TensorBoard(...)")


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, _USUAL) else str(value)


def _now() -> float:
    """Seconds since 1970: what viewers show as wall time."""
    return datetime.now().timestamp()
