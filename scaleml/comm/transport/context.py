"""The context of one rank: who it is, what it stamps into its frames, and how its waits end."""

from __future__ import annotations

import threading
from typing import Final, final

from scaleml.clock import WALL, Clock
from scaleml.comm.communicator import OnStall, Stamps
from scaleml.comm.errors import Aborted, CommError, Mismatch, PeerLost, PeerTimeout
from scaleml.comm.meter import Meter


@final
class RankContext:
    """One rank among `size`, as its links, its memory and its communicators know it.

    Attributes
    ----------
    rank, size : int
        Its number in the root communicator, and how many there are.
    run, generation : int
        Which run, and which of its generations; frames of any other are refused.
    step, compute_seconds, control : int, float, int
        What goes into every frame; `control` rises to the highest word that came.
    announcements : dict
        What rank 0 announced, by number, as far as frames were read.
    emulated_delay : float
        Seconds for which bad links have held up the operation under way ...
    inherited_delay : float
        ... and those of the one before, by which our frames come later through no fault of ours: they say so.
    reason : str or None
        Why it was aborted.
    ended : bool
        Whether it was aborted or closed: then `check` raises.
    """

    def __init__(self, rank: int, size: int, run: int, generation: int, timeout: float, clock: Clock = WALL) -> None:
        self.rank = rank
        self.size = size
        self.run = run
        self.generation = generation
        self.timeout = timeout
        self.on_stall: OnStall | None = None
        self.clock: Final = clock
        self.meter = Meter(size)
        self.step = 0
        self.compute_seconds = 0.0
        self.control = 0
        self.announcements: dict[int, bytes] = {}
        self.emulated_delay = 0.0
        self.inherited_delay = 0.0
        self.reason: str | None = None
        self.closed = self.ended = False
        self._lock = threading.Lock()

    # --- frames ---------------------------------------------------------------------------------------------------

    def raise_control(self, control: int) -> None:
        """Take over a control word, if it is higher."""
        with self._lock:  # two threads read frames when collectives run in the background
            self.control = max(self.control, control)

    def note_delay(self, seconds: float) -> float:
        """Note that a bad link cost us so many seconds, for which our next frames come later; return them."""
        self.emulated_delay = max(self.emulated_delay, seconds)
        return seconds

    # --- how waits end --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise if this rank was aborted or closed."""
        if self.reason is not None:
            raise Aborted(
                f"rank {self.rank} was aborted at step {self.step}: {self.reason}", rank=self.rank, step=self.step
            )
        if self.closed:
            raise CommError(f"rank {self.rank}'s group is closed", rank=self.rank, step=self.step)

    def lost(self, peer: int, waiting_for: object) -> CommError:
        """Return the error for a link that was found closed (ours, if we were aborted)."""
        try:
            self.check()
        except CommError as error:
            return error
        return PeerLost(
            f"rank {self.rank} lost rank {peer} at step {self.step}, waiting for {waiting_for}: "
            f"its process died or left the group",
            rank=self.rank, peer=peer, step=self.step,
        )  # fmt: skip

    def other_length(self, peer: int, sent: int, expected: int) -> Mismatch:
        """Return the error for a payload of another length than it must have."""
        return Mismatch(
            f"rank {self.rank} expected {expected} bytes from rank {peer} at step {self.step}, "
            f"which sent {sent}: all ranks must use the same version and settings",
            rank=self.rank, peer=peer, step=self.step,
        )  # fmt: skip

    def stalled(self, peer: int, waiting_for: object, seconds: float) -> None:
        """Ask whether to go on, for nothing came for so many seconds.

        Raises
        ------
        PeerTimeout
            If nobody wants to.
        """
        self.check()
        if self.on_stall is not None and self.on_stall(peer, self.step, str(waiting_for), seconds):
            return
        self.check()
        whom = f"rank {peer}" if peer >= 0 else "any rank"
        raise PeerTimeout(
            f"rank {self.rank} waited {seconds:.1f} s for {whom} at step {self.step}, for {waiting_for}: "
            f"nothing came within the timeout of {self.timeout:g} s",
            rank=self.rank, peer=peer, step=self.step,
        )  # fmt: skip

    def abort(self, reason: str) -> None:
        """From any thread: have every wait, now or later, end with `Aborted`; whatever blocks must be woken."""
        with self._lock:
            if self.reason is None:
                self.reason = reason
            self.ended = True

    def close(self) -> bool:
        """Close it; False if it was before."""
        with self._lock:
            was_open, self.closed, self.ended = not self.closed, True, True
            return was_open


class OfRank:
    """A communicator as one of its rank's: what all of these share is their context's."""

    def __init__(self, context: RankContext) -> None:
        self._context = context
        self.stamps: Final[Stamps] = context
        self.meter: Final = context.meter
        self.clock: Final = context.clock

    @property
    def step(self) -> int:
        return self._context.step

    @step.setter
    def step(self, step: int) -> None:
        self._context.step = step

    @property
    def compute_seconds(self) -> float:
        return self._context.compute_seconds

    @compute_seconds.setter
    def compute_seconds(self, seconds: float) -> None:
        self._context.compute_seconds = seconds

    @property
    def control(self) -> int:
        return self._context.control

    @control.setter
    def control(self, control: int) -> None:
        self._context.control = control

    @property
    def timeout(self) -> float:
        return self._context.timeout

    def raise_control(self, control: int) -> None:
        self._context.raise_control(control)

    def check(self) -> None:
        self._context.check()

    def stalled(self, peer: int, waiting_for: object, seconds: float) -> None:
        self._context.stalled(peer, waiting_for, seconds)
