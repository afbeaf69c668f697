"""Gossip: what ranks without a server say to each other; parameters, answers, and how far they are."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import numpy as np

from scaleml.arrays import Array, namespace
from scaleml.comm.communicator import Communicator, Message
from scaleml.comm.conventions import INLINE
from scaleml.runtime.coordinator import AsynchronousCoordinator
from scaleml.runtime.plan import Plan
from scaleml.telemetry.recorder import Recorder

AVERAGE: Final = 11
"""Parameters of this step."""
READ: Final = 12
"""The receiver is done with the memory they lie in."""
OFFER: Final = 13
"""Parameters for a passive rank to answer; empty: its sender has all its answers."""
ANSWER: Final = 14
NOTICE: Final = 15
"""From rank 0: evaluations due so far, and whether the run has had its rows."""


class GossipCoordinator(AsynchronousCoordinator):
    """A rank's end of all its conversations with others.

    Parameters
    ----------
    w : (P,) array
        This rank's parameters.

    Attributes
    ----------
    evaluations_due : int
        So far, as rank 0 says.
    done : bool
        Whether the run has had its rows, as rank 0 says.
    """

    def __init__(self, plan: Plan, group: Communicator, w: Array, recorder: Recorder) -> None:
        self._group = group
        self._recorder = recorder
        self._w = w
        self._dtype = plan.model.dtype
        self._now = group.clock.now
        self._total = plan.total
        self._taken = np.array(plan.taken or [0.0] * group.size)
        self._before = plan.start.samples if plan.start is not None and plan.resumed else 0
        self._every = plan.evaluate_every
        self._boxes: Array | None = None
        self._readers: list[set[int]] = [set(), set()]  # who has not yet read what lies in a box
        self._turn = 0
        self._xp = xp = namespace(w)
        self._put: Callable[[Array], Array] = _as_it_is if xp is np else xp.asarray
        self._rows = self._taken.copy()  # of every rank, as far as known
        self._included = 0  # updates of our own that are in our parameters
        self._seen = [0] * group.size  # updates of every rank that are in our parameters
        self._asked = -1
        self._rounds = 0
        self._settled = dict.fromkeys(range(0, group.size, 2), 0)
        if not plan.strategy.synchronous and not plan.layout.servers:
            self._box(0)  # here, for it is collective

    # --- in step ------------------------------------------------------------------------------------------------------

    def average(self, w: Array, sources: Collection[int], receivers: Collection[int]) -> None:
        """Give ``w`` (P,) to the receivers, and replace it by the mean of itself and the sources' parameters."""
        group = self._group
        turn = self._turn = 1 - self._turn
        box = self._box(turn)[: w.size]
        while self._readers[turn]:  # of two steps ago
            self._await_reader(turn)
        begin = self._now()
        box[:] = w
        group.meter.comm += self._now() - begin
        lent = box.nbytes > INLINE  # what is shorter has left the box when it was sent
        for receiver in receivers:
            group.send(box, receiver, tag=AVERAGE)
            if lent:
                self._readers[turn].add(receiver)
        for source in sources:
            theirs = group.recv(source, tag=AVERAGE, view=True).array
            begin = self._now()
            w += self._put(theirs)
            group.meter.comm += self._now() - begin
            if lent:
                group.send(b"", source, tag=READ)
        begin = self._now()
        w *= 1.0 / (1 + len(sources))
        group.meter.comm += self._now() - begin

    # --- at one's own pace --------------------------------------------------------------------------------------------

    def mix(self, w: Array) -> None:
        """Take in what has come: answers to our offers, offers that we answer; note how far all are."""
        group = self._group
        self._rows[group.rank] = self._taken[group.rank] + self._recorder.samples - self._before
        self._included = group.step
        if group.size > 1:
            if self._asked >= 0 and group.poll(ANSWER):
                self._take_answer(w)
            while group.poll(READ):
                self._note_reader()
            while not all(self._readers) and group.poll(OFFER):
                self._hear(w)
        self._included = group.step + 1
        self._keep_time()

    def offer(self, w: Array, partner: int) -> None:
        """Offer ``w`` (P,) to a passive rank, unless an offer is under way."""
        if self._asked >= 0:
            return
        self._asked = partner
        box = self._box(0)  # the last offer has been answered: it was read
        begin = self._now()
        box[: w.size] = w
        self._group.meter.comm += self._now() - begin
        self._send(box, partner, OFFER, 0)

    def taken(self) -> list[float]:
        """Return the rows of each rank, as far as its parameters have come here."""
        known: list[float] = self._rows.tolist()
        return known

    def settle(self) -> None:
        """End all conversations that are under way; collective. Passive ranks answer until all active ones have their answers."""
        group = self._group
        self._rounds += 1
        if group.rank % 2 == 0:
            if self._asked >= 0:
                self._take_answer(self._w)
            for passive in range(1, group.size, 2):
                group.send(b"", passive, tag=OFFER)
            return
        while min(self._settled.values()) < self._rounds:
            self._hear(self._w)

    def park(self, w: Array) -> None:
        """Settle: who is parked owes nobody an answer."""
        self.settle()

    def leave(self, w: Array) -> bool:
        """Settle for good."""
        self.settle()
        return True

    def agreed(self, w: Array, workers: Communicator) -> Array:
        """Return the mean of all ranks' parameters."""
        self.settle()
        mean = w.copy()
        self.collect(mean, workers)
        return mean

    def collect(self, w: Array, workers: Communicator) -> None:
        """Give all ranks the mean of their parameters, in place."""
        workers.allreduce(w)
        w /= workers.size

    def _take_answer(self, w: Array) -> None:
        partner, self._asked = self._asked, -1
        message = self._group.recv(partner, tag=ANSWER, view=True)
        begin = self._now()
        w -= self._put(message.array[: w.size])
        self._learn(message)
        self._group.meter.comm += self._now() - begin
        if message.array.nbytes > INLINE:
            self._group.send(b"", partner, tag=READ, codec=message.codec)

    def _hear(self, w: Array) -> None:
        """Receive what an active rank says, and answer an offer."""
        group = self._group
        message = group.recv(tag=OFFER, view=True)
        if len(message.payload) == 0:
            self._settled[message.source] += 1
            return
        while all(self._readers):  # an active rank reads between two of its steps, whatever we do
            self._note_reader()
        turn = 1 if self._readers[0] else 0
        box = self._box(turn)
        begin = self._now()
        half = box[: w.size]
        self._xp.subtract(self._put(message.array[: w.size]), w, out=half)
        half *= 0.5
        w += half
        self._learn(message)
        group.meter.comm += self._now() - begin
        if box.nbytes > INLINE:
            self._readers[turn].add(message.source)
        self._send(box, message.source, ANSWER, turn)

    # --- memory and notes ---------------------------------------------------------------------------------------------

    def _box(self, turn: int) -> Array:
        """Return one of two boxes that others may read from: parameters, and the rows that we know of."""
        if self._boxes is None:
            length = self._w.size + self._group.size
            self._boxes = self._group.buffer(2 * length, self._dtype).reshape(2, length)
        box: Array = self._boxes[turn]
        return box

    def _await_reader(self, turn: int) -> None:
        reader = next(iter(self._readers[turn]))
        self._group.recv(reader, tag=READ)
        self._readers[turn].discard(reader)

    def _note_reader(self) -> None:
        message = self._group.recv(tag=READ)
        self._readers[message.codec].discard(message.source)

    def _send(self, box: Array, to: int, tag: int, turn: int) -> None:
        box[self._w.size :] = self._put(self._rows)
        self._group.send(box, to, tag=tag, sequence=self._included, codec=turn)

    def _learn(self, message: Message) -> None:
        """Take in which rows and updates the other one knows of."""
        own = self._rows[self._group.rank]
        np.maximum(self._rows, message.array[self._w.size :], out=self._rows)
        self._rows[self._group.rank] = own  # exact, where the payload is rounded
        self._recorder.staleness += message.sequence - self._seen[message.source]
        self._seen[message.source] = message.sequence

    def _keep_time(self) -> None:
        """Rank 0 decides what is due and tells the others, who come to it between two steps: so all see it in one order."""
        group = self._group
        if group.rank:
            while group.poll(NOTICE):
                due, done = group.recv(0, tag=NOTICE).array.tolist()
                self.evaluations_due, self.done = due, bool(done)
            return
        rows = self._rows.sum()
        done = rows >= self._total
        due = int(rows // self._every) if self._every and not done else self.evaluations_due
        if due > self.evaluations_due or done > self.done:
            self.evaluations_due, self.done = due, bool(done)
            for rank in range(1, group.size):
                group.send(np.array([due, done], np.int64), rank, tag=NOTICE)


def _as_it_is(x: Array) -> Array:
    return x
