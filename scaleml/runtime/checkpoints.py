"""Checkpoints of a run, as a rank sees them: when one is due, which all ranks agree on, and what this rank adds to it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypedDict, final

import numpy as np

from scaleml.checkpoint.catalog import step_folder
from scaleml.checkpoint.manifest import SHARED, rank_file, server_file
from scaleml.checkpoint.writer import Job, Writer
from scaleml.data.batches import Batches
from scaleml.data.fingerprint import fingerprints, refuse_other_rows
from scaleml.runtime.recovery_points import private_part
from scaleml.runtime.serialization import describe
from scaleml.runtime.train_state import TrainState

if TYPE_CHECKING:
    from scaleml.runtime.training_rank import TrainingRank

__all__ = ["Checkpoints", "shared_part"]

_AGAIN: Final = 0.25
"""Of the way from one to the next: when to look again, where the last one is still being written."""

_LOOK: Final = 0.1
"""Seconds between two looks, at the end, whether the run is still wanted while its last checkpoint is being written."""
_LOOKS: Final = 6000
"""As many are waited: storage that does not answer must not hold a run for ever."""


class Counters(TypedDict):
    """How far all ranks together have come."""

    consumed: int
    step: int
    rows: float
    updates: int


@final
class Checkpoints:
    """Those of one rank that trains.

    Parameters
    ----------
    rank : TrainingRank
        Whose state is written.
    batches : Batches
        Its rows, whose fingerprints stand in the manifest.

    Attributes
    ----------
    due : float
        Rows consumed at which all ranks look whether to write one.
    """

    def __init__(self, rank: TrainingRank, batches: Batches) -> None:
        self._rank, self._saving = rank, rank.plan.saving
        self._batches = batches
        self._prints: dict[str, str] = {}
        self.due: float = np.inf
        self._since, self._from, self._pace = 0.0, 0, 1.0
        self._step, self._time = -1, 0.0
        self._token = ""
        self._has_left = False
        self._taken = 0
        self._writer: Writer | None = None

    def begin(self) -> None:
        """Look at the rows, which are to be those of the checkpoint that the run goes on from, and start counting; collective."""
        plan, saving = self._rank.plan, self._saving
        if plan.origin is not None or saving is not None:
            self._prints = fingerprints(self._batches)
        if plan.origin is not None:
            refuse_other_rows(self._prints, plan.origin.fingerprints)
        if saving is None:
            return
        group = self._rank.group
        self._token = group.allgather_bytes(new_token())[0].decode()
        self._writer = Writer(
            saving.url,
            rank=group.rank,
            ranks=group.size,
            run=saving.run,
            version=saving.version,
            keep=saving.keep,
            base=saving.base,
            told=self._tell,
        )
        self._since, self._from = self._now(), self._rank.state.consumed
        self.due = self._next_epochs(self._from) if saving.epochs else self._from + 1

    def look(self) -> None:
        """Write one if it is time and the last one is there; agree on when to look again. Collective."""
        rank, saving, writer = self._rank, self._saving, self._writer
        assert saving is not None and writer is not None
        mine = np.array([self._now() - self._since, writer.is_busy, writer.failed], np.float64)
        seconds, busy, failed = (float(most) for most in rank.group.allgather(mine).max(axis=0))
        consumed = rank.state.consumed
        if failed:
            writer.give_up()
        is_time = saving.epochs > 0 or seconds >= saving.seconds
        self._pace = max(self._pace if seconds <= 0 else (consumed - self._from) / seconds, 1e-9)
        if is_time and not busy:
            self._take()
            self._since, self._from, seconds = self._now(), consumed, 0.0
        waits = is_time and busy
        if saving.epochs:
            again = consumed + max(1.0, _AGAIN * saving.epochs * rank.plan.rows)
            following = self._next_epochs(consumed)
            self.due = min(again, following) if waits else following
            return
        left = _AGAIN * saving.seconds if waits else saving.seconds - seconds
        seen = max(consumed - self._from, rank.batch_size)  # what few steps took says little of many
        self.due = consumed + max(1.0, min(left * self._pace, 2.0 * seen))

    def look_apart(self) -> None:
        """Do the same where ranks have a pace of their own, and have come together for an evaluation; collective."""
        writer, saving, rank = self._writer, self._saving, self._rank
        if writer is None or saving is None:
            return
        mine = np.array([self._now() - self._since, writer.is_busy, writer.failed, self._has_left], np.float64)
        seconds, busy, failed, left = (float(most) for most in rank.group.allgather(mine).max(axis=0))
        if failed:
            writer.give_up()
        consumed = self._common()["consumed"]
        is_time = consumed >= self.due if saving.epochs else seconds >= saving.seconds
        if is_time and not busy and not left:  # else one at the end will come
            self._take()
            self._since = self._now()
            self.due = self._next_epochs(consumed)
        rank.group.barrier()  # nobody goes on before rank 0 has what all share

    def leave(self) -> None:
        """Note that this rank takes no more steps: it has told servers so."""
        self._has_left = True

    def any_switching(self) -> bool:
        """Whether any rank of a run that writes checkpoints hands over to others; collective in such a run alone."""
        if self._writer is None:
            return False
        return bool(self._rank.group.allgather(np.array([self._rank.switching], np.float64)).any())

    def end(self, is_over: bool = True) -> None:
        """Write the last one, and wait until it is there: at the end of the run, or where it is stopped. Collective, no training time."""
        if self._writer is not None:
            self._rank.evaluation.off_the_clock(lambda: self._finish(is_over))
            self.close()

    def close(self) -> None:
        """End the writer, whatever it waits for."""
        if self._writer is not None:
            self._writer.close(patience=1.0)
            self._writer, self.due = None, np.inf

    def _finish(self, is_over: bool) -> None:
        wanted = is_over or self._rank.coordinator is not None or self._step != self._rank.state.step
        if self._settle() and wanted:
            self._take(is_over)
            self._settle()

    def _settle(self) -> bool:
        """Wait until all ranks have written what they write, or have failed to; whether none of them still writes. Collective."""
        writer, group = self._writer, self._rank.group
        assert writer is not None
        if group.rank:
            self._await_writer(writer)
        failed = writer.failed and group.rank > 0
        if group.allgather(np.array([failed], np.float64)).any():
            writer.give_up()
        self._await_writer(writer)
        return not group.allgather(np.array([writer.is_busy], np.float64)).any()

    def _await_writer(self, writer: Writer) -> None:
        for _ in range(_LOOKS):
            if writer.wait(_LOOK):
                return
            self._rank.world.check()
        writer.lose()

    def _take(self, is_over: bool = False) -> None:
        """Copy the state and have it written."""
        rank, writer, saving = self._rank, self._writer, self._saving
        assert writer is not None and saving is not None
        state = replace(rank.snapshot(), faults=())  # what is broken on purpose is not broken again
        servers: list[Callable[[], bytes]] = []
        if rank.coordinator is not None:
            servers = rank.coordinator.server_states(at_end=self._has_left)
            # Those of a rank that servers or shared memory do not have are its own.
            state = replace(state, **self._common(), committed=rank.has_servers or rank.strategy.shares_memory)
            state = replace(state, params=state.params[:0], arrays={}) if rank.has_servers else state
        self._step, self._time = state.step, state.clock
        number = rank.group.rank
        files = {rank_file(number): lambda: private_part(state).to_bytes()}
        about = None
        if not number:
            files[SHARED] = lambda: shared_part(state).to_bytes()
            files |= {server_file(server): make for server, make in enumerate(servers)}
            about = {**saving.about, **self._standing(state), "over": is_over}
        self._taken += 1  # ranks with a pace of their own may come to a step twice
        writer.put(
            Job(
                step_folder(state.step, f"{self._token}{self._taken:02x}"), files, {"fingerprints": self._prints}, about
            )
        )

    def _common(self) -> Counters:
        """Return the counters of ranks that keep their own pace, as all of them together would have them; collective."""
        rank, before = self._rank, self._rank.plan.start if self._rank.plan.resumed else None
        state, samples = rank.state, rank.recorder.samples - (0 if before is None else before.samples)
        mine = np.array([samples, state.step, state.rows, state.updates], np.float64)
        ranks = rank.group.allgather(mine)
        step, rows, updates = ranks[:, 1:].max(axis=0).tolist()
        consumed = int(ranks[:, 0].sum()) + (0 if before is None else before.consumed)
        return {"consumed": consumed, "step": int(step), "rows": rows, "updates": int(updates)}

    def _standing(self, state: TrainState) -> dict[str, Any]:
        """Return how far the run has come, and what it may have been told to change since it began."""
        rank = self._rank
        assert state.optimizer is not None
        return {
            "step": state.step,
            "consumed": state.consumed,
            "epoch": state.consumed / rank.plan.rows,
            "clock": state.clock,
            "commands": state.commands,
            "strategy": describe(rank.strategy),
            "optimizer": describe(state.optimizer),
            "batch_size": state.batch_size,
            "evaluations": [list(one) for one in rank.evaluation.recent],
        }

    def _next_epochs(self, consumed: int) -> float:
        """Return the rows at which the next one is due, where that goes by epochs."""
        assert self._saving is not None
        every = self._saving.epochs * self._rank.plan.rows
        return (consumed // every + 1) * every if every else np.inf

    def _tell(self, text: str) -> None:
        """Have the history say what went wrong; called in the writer's thread."""
        self._rank.report("mark", time=self._time, step=self._step, text=text, what="checkpoint")

    def _now(self) -> float:
        return self._rank.world.clock.now()


def shared_part(state: TrainState) -> TrainState:
    """Return what of a state all ranks have alike."""
    private = state.private
    arrays = {name: array for name, array in state.arrays.items() if name not in private}
    params = state.params[:0] if "params" in private else state.params
    return replace(state, params=params, arrays=arrays, buffers=None, random={})


def new_token() -> bytes:
    """Return what tells the checkpoints of one start of the ranks from those of another that comes to the same steps."""
    return secrets.token_hex(3).encode()
