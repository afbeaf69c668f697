"""The task of a program's rank: a user's function, called once the ranks are linked, in the rank's own thread."""

from __future__ import annotations

import contextlib
import pickle
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing import current_process
from typing import Final, final

import cloudpickle
from dask.utils import format_bytes
from distributed import Worker, get_worker
from distributed.worker import secede

from scaleml import comm
from scaleml.clock import WALL
from scaleml.cluster.endpoint import Endpoint, host_of, release_endpoint, take_endpoint
from scaleml.cluster.events import Arrived, Entered, Left, RankFailed
from scaleml.cluster.interruption import Interrupted, Interruption
from scaleml.cluster.program import Call, EarlyReturn, ProgramOutcome, ProgramSettings
from scaleml.cluster.rank_links import connect
from scaleml.cluster.rank_output import OutputLines, captured
from scaleml.cluster.rank_spec import RankSpec
from scaleml.cluster.reporter import Reporter
from scaleml.comm import CommError, Communicator
from scaleml.escaping import printable
from scaleml.frameworks.backend import Backend, Place
from scaleml.frameworks.backends import make_backend
from scaleml.frameworks.current_rank import CurrentRank, as_rank
from scaleml.frameworks.rank_communicator import RankCommunicator
from scaleml.owned_files import sweep
from scaleml.runtime.blas_threads import pinned
from scaleml.runtime.freed_memory import kept_freed_memory

_TO_END: Final = 0.3
"""Seconds for a rank that is told to end, before it is broken off."""
_UNDER_WAY: Final = 0.03
"""Seconds for a worker's news to be on its way: Dask gathers it for some milliseconds."""


def program_main(
    work: Callable[..., Call], apart: Sequence[object], spec: RankSpec, settings: ProgramSettings
) -> ProgramOutcome | None:
    """Run one rank of a program to its end; never raises: see `rank_main`.

    Parameters
    ----------
    work : callable
        Called with what is ``apart``, unpickles the function and its arguments.
    apart : sequence
        What Dask has brought: the values of futures among the arguments.
    """
    endpoint = take_endpoint(spec.key, spec.nonce)
    if endpoint is None:
        return None
    rank = ProgramRank(spec, settings, endpoint, get_worker())
    try:
        secede()
        return rank.run(partial(work, *apart))
    finally:
        release_endpoint(spec.key)


@final
class ProgramRank:
    """A rank of a program, from its links to what it returns.

    Parameters
    ----------
    spec : RankSpec
        Who it is.
    settings : ProgramSettings
        What all ranks know.
    endpoint : Endpoint
        How it is reached.
    worker : Worker
        Where it is.
    """

    def __init__(self, spec: RankSpec, settings: ProgramSettings, endpoint: Endpoint, worker: Worker) -> None:
        self._spec = spec
        self._settings = settings
        self._endpoint = endpoint
        self._worker = worker
        self._output = OutputLines()
        self._reporter = Reporter(worker, spec.task, endpoint, self._output, timeout=spec.comm_timeout)
        self._output.on_lines = self._reporter.send_output
        self._interruption = Interruption()
        self._group: Communicator | None = None
        self._backend: Backend | None = None
        self._has_returned = self._has_hung_up = False

    def run(self, work: Callable[[], Call]) -> ProgramOutcome:
        """Link, call the function, and return how that ended."""
        outcome = ProgramOutcome("failed", error="it did not say why")
        try:
            self._reporter.send(Arrived(self._spec.rank))
            sweep()
            with connect(self._spec, self._endpoint, self._reporter, self._worker, self._when_stalled) as group:
                self._group = group
                self._endpoint.attach(self)
                self._reporter.send(Entered(self._spec.rank))
                outcome = self._outcome(work, group)
        except Exception as error:  # noqa: BLE001  whatever it is, the supervisor is to know
            outcome = self._failure(error)
        finally:
            self._endpoint.listener.close()
            self._output.close()
            sweep()
            self._reporter.stop()
        self._reporter.send(Left(self._spec.rank, outcome.status, -1))
        return outcome

    def abort(self, reason: str) -> None:
        """From any thread: end the rank, whatever its function is doing, as far as Python can."""
        if self._group is not None:
            self._group.abort(reason)
        backend = self._backend
        if backend is not None:
            with contextlib.suppress(Exception):
                backend.interrupt()
        self._output.close()
        # Who only waited has an error by now. What an exception meets in the middle of a computation may be left half done.
        self._worker.loop.add_callback(self._worker.loop.call_later, _TO_END, self._interruption.interrupt)

    def _outcome(self, work: Callable[[], Call], group: Communicator) -> ProgramOutcome:
        current = CurrentRank(RankCommunicator(group), self._output.write)
        failed = True
        with captured(), as_rank(current), _children_allowed():
            try:
                value = self._interruption.call(partial(self._value, work, group))
                self._meet_again(group)
                failed = False
            except (Exception, Interrupted, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001  what an own error is, too
                # Told before the links close: then the cause is known before its consequences.
                outcome = self._failure(error)
                traceback.clear_frames(error.__traceback__)  # what they hold keeps a backend's connections open
            else:
                outcome = ProgramOutcome("finished", value)
            finally:
                self._leave_backend(failed)
        return outcome

    def _value(self, work: Callable[[], Call], group: Communicator) -> bytes:
        function, args, kwargs = self._interruption.call(work)
        if self._settings.backend is not None:
            place = Place(group, host_of(self._worker.address), self._settings.port_range, self._spec.start_timeout)
            self._backend = make_backend(self._settings.backend, place)
        # After the imports: OpenMP's threads are set in the libraries that are there. And what is broken off lies within.
        with pinned(self._spec.threads), kept_freed_memory():
            value = self._interruption.call(partial(self._called, function, args, kwargs))
        return self._pickled(value)

    def _called(self, function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        if self._backend is not None:
            self._backend.start()
        try:
            return function(*args, **kwargs)
        except SystemExit as leaving:  # how scripts end
            if leaving.code not in (None, 0):
                raise
            return None

    def _pickled(self, value: object) -> bytes:
        try:
            payload: bytes = cloudpickle.dumps(value)
        except Exception as error:
            raise TypeError(
                f"what the function returned, a {type(value).__name__}, cannot be pickled ({error}): return plain values or arrays, or a "
                "model's state_dict()"
            ) from error
        most = self._settings.result_limit
        if len(payload) > most:
            raise ValueError(
                f"what the function returned has {format_bytes(len(payload))}, more than the {format_bytes(most)} that go back to the "
                "client: return less, or from rank 0 alone, write it to a file, or raise dask.config 'scaleml.result-limit'"
            )
        return payload

    def _meet_again(self, group: Communicator) -> None:
        """Wait for the others' return, so that whoever still waits for this rank hears what is wrong."""
        self._has_returned = True
        try:
            group.barrier()
        except (comm.Mismatch, comm.PeerLost, comm.Aborted) as error:
            if not (self._has_hung_up or isinstance(error, comm.Mismatch)):
                raise
            raise EarlyReturn(
                f"its function had returned while another rank still waited for it: every rank has to call every collective ({error})"
            ) from None

    def _when_stalled(self) -> None:
        """End what others may wait for in a backend, whose collectives nobody watches, once this rank calls none any more."""
        if self._has_returned and self._backend is not None and not self._has_hung_up:
            self._has_hung_up = True
            self._leave_backend(failed=True)

    def _leave_backend(self, failed: bool) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            with contextlib.suppress(Exception):
                backend.leave(failed)

    def _failure(self, error: BaseException) -> ProgramOutcome:
        words = printable(str(error) if isinstance(error, CommError | EarlyReturn) else _words(error))
        trace = "" if isinstance(error, EarlyReturn) else printable(_trace(error))
        self._reporter.send_output(everything=True)
        peer = error.peer if isinstance(error, comm.PeerLost) else -1
        cause = self._cause(error)
        self._reporter.send(RankFailed(self._spec.rank, words, cause, -1, peer))
        if cause == "own":  # who loses this rank may make another error of it, and must not be heard first
            WALL.sleep(_UNDER_WAY)
        return ProgramOutcome("failed", error=words, trace=trace, exception=_pickled_error(error))

    def _cause(self, error: BaseException) -> str:
        """Return how near to the root an error is: see `RankFailed`. What a program makes of a lost peer is no cause either."""
        if isinstance(error, EarlyReturn):
            return "own"
        for one in _chain(error):
            if isinstance(one, Interrupted | comm.Aborted):
                return "told"
            # Of ranks in different collectives one may be at its end: that is the one to name.
            if isinstance(one, comm.PeerLost | comm.Mismatch) or (
                self._backend is not None and self._backend.is_echo(one)
            ):
                return "peer"
        return "own"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _words(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _trace(error: BaseException) -> str:
    """Return the traceback from the user's function on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and frames.tb_frame.f_globals.get("__name__") in _OURS:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


_OURS: Final = (__name__, "scaleml.cluster.interruption")


def _pickled_error(error: BaseException) -> bytes:
    if not isinstance(error, Exception):
        return b""
    try:
        payload: bytes = cloudpickle.dumps(error)
        pickle.loads(payload)  # of many classes what is pickled cannot be read
    except Exception:  # noqa: BLE001  then the client has its words alone
        return b""
    return payload


@contextlib.contextmanager
def _children_allowed() -> Iterator[None]:
    """Let the function start processes, as data loaders do: Dask's workers are daemons, which Python does not let have children."""
    settings = getattr(current_process(), "_config", {})
    was = settings.get("daemon")
    if was:
        settings["daemon"] = False
    try:
        yield
    finally:
        if was:
            settings["daemon"] = was
