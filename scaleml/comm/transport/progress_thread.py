"""The progress thread: collectives in the background, one thread a rank, its own links, in the order of their start."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, final

from scaleml.clock import WALL
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.context import RankContext

Result = TypeVar("Result")

_now = WALL.now


@final
class BackgroundOperation(Generic[Result]):
    """A collective that was started; its vector must not be touched before `wait` returned."""

    def __init__(self, context: RankContext, operation: Callable[[Channel], Result]) -> None:
        self._context = context
        self._operation = operation
        self._running = threading.Lock()
        self._running.acquire()
        self._result: Result
        self._error: BaseException | None = None
        self._waited_until = self._blocked = 0.0
        self._blocker = self._sent = self._received = 0

    def done(self) -> bool:
        """Whether `wait` would return at once."""
        return not self._running.locked()

    def wait(self) -> Result:
        """Wait for the end; return what the blocking form returns.

        Raises
        ------
        CommError
            What went wrong, here or in an operation that was started earlier.
        """
        start = _now()
        with self._running:  # bounded: the operation's own waits are
            pass
        stop = _now()
        meter = self._context.meter
        # Only what this thread lost counts, so that a rank's times add up: first to the peer's delay, then to the wire.
        blocked = min(max(self._waited_until - start, 0.0), self._blocked, stop - start)
        meter.account(stop - start, blocked, self._blocker)
        meter.bytes_sent += self._sent
        meter.bytes_received += self._received
        self._blocked = self._sent = self._received = 0
        if self._error is not None:
            raise self._error
        return self._result

    def run(self, channel: Channel, earlier: BaseException | None) -> BaseException | None:
        """In the progress thread: do it, unless an `earlier` operation failed; return its error."""
        meter = channel.meter
        meter.reset()
        channel.blocked = 0.0
        start = _now()
        self._error = earlier
        if earlier is None:
            try:
                self._context.check()
                self._result = self._operation(channel)
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                self._error = error
        self._blocked, self._blocker = channel.blocked, channel.blocker
        self._waited_until = start + channel.blocked
        self._sent, self._received = meter.bytes_sent, meter.bytes_received
        del self._operation
        self._running.release()
        return self._error


@final
class ProgressThread:
    """The progress thread of one rank, started with its first operation.

    Attributes
    ----------
    busy : bool
        Whether something was started that nobody has drained; only the rank's own thread starts and drains.
    """

    def __init__(self, context: RankContext, channel: Channel) -> None:
        self.channel = channel
        self.busy = False
        self._context = context
        self._queue: queue.SimpleQueue[BackgroundOperation[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: BackgroundOperation[Any] | None = None

    def start(self, operation: Callable[[Channel], Result]) -> BackgroundOperation[Result]:
        """Queue an operation."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"scaleml-comm-{self._context.rank}", daemon=True)
            self._thread.start()
        self._last = handle = BackgroundOperation(self._context, operation)
        self._queue.put(handle)
        self.busy = True
        return handle

    def drain(self) -> None:
        """Wait for all that was started."""
        last, self._last, self.busy = self._last, None, False
        if last is not None:
            last.wait()

    def close(self) -> None:
        """End the thread; the links must have been woken."""
        if self._thread is not None:
            self._queue.put(None)
            if self._thread is not threading.current_thread():
                self._thread.join()
            self._thread = None

    def _work(self) -> None:
        failed: BaseException | None = None
        while (handle := self._queue.get()) is not None:
            failed = handle.run(self.channel, failed) or failed
