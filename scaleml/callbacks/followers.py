"""Followers: the threads in which callbacks are told of one run, or of a comparison's end, where whatever they do hurts nobody."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, final

from scaleml.callbacks.base import Callback, Evaluation, FollowedRun
from scaleml.callbacks.news import News
from scaleml.clock import WALL
from scaleml.escaping import printable
from scaleml.telemetry.history import Change

if TYPE_CHECKING:
    from scaleml.telemetry.comparison import Comparison

_log = logging.getLogger(__name__)
_HOOKS: Final[dict[type, str]] = {Evaluation: "on_evaluation", Change: "on_change"}
"""Who is told of what; all else are rows."""


@final
class CallbackList:
    """The callbacks of a run or of a comparison, and which of them are left out.

    Parameters
    ----------
    callbacks : sequence of Callback

    Raises
    ------
    TypeError
        For what is no callback.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        if not isinstance(callbacks, list | tuple):
            example = repr(callbacks) if isinstance(callbacks, Callback) else "Tqdm()"
            raise TypeError(f"callbacks={callbacks!r}: must be a list such as [{example}]")
        for callback in callbacks:
            if not isinstance(callback, Callback):
                hint = f"; {callback.__name__} is a class: call it" if isinstance(callback, type) else ""
                raise TypeError(
                    f"callbacks={callbacks!r}: {callback!r} is no scaleml.callbacks.Callback: derive from that, and write the hooks "
                    f"you need{hint}"
                )
        self._callbacks = tuple(callbacks)
        self._left_out: set[int] = set()

    @property
    def shows_progress(self) -> bool:
        """Whether one of them shows how far a run is."""
        return any(callback.shows_progress for callback in self._callbacks)

    def follow(self, run: FollowedRun) -> Followers:
        """Have all that are not left out told of a run, from its start to its end; return at once."""
        heard = [number for number in range(len(self._callbacks)) if number not in self._left_out]
        return Followers(
            [Follower(self._callbacks[number], run, partial(self._left_out.add, number)) for number in heard]
        )

    def end_comparison(self, comparison: Comparison) -> bool:
        """Tell all that are not left out what a comparison came to, and wait as for a run's end; whether nobody pressed Ctrl-C."""
        heard = [number for number in range(len(self._callbacks)) if number not in self._left_out]
        return Followers(
            [EndTeller(self._callbacks[number], comparison, partial(self._left_out.add, number)) for number in heard]
        ).join()


@final
class Followers:
    """All who are told of one run, or of a comparison's end.

    Parameters
    ----------
    followers : sequence of Teller
    """

    def __init__(self, followers: Sequence[Teller] = ()) -> None:
        self._followers = followers
        for follower in followers:
            follower.start()

    def wake(self) -> None:
        """Have all of them look now: the run is over."""
        for follower in self._followers:
            follower.wake()

    def join(self) -> bool:
        """Wait until all were told of the end of a run that is over, for each as long as its patience; whether nobody pressed Ctrl-C."""
        if any(follower.thread is threading.current_thread() for follower in self._followers):
            return True  # a hook waits for the run
        began = WALL.now()
        try:
            for follower in self._followers:
                follower.join(began)
        except KeyboardInterrupt:
            for follower in self._followers:
                follower.leave_behind("when it was interrupted")
            return False
        return True


class Teller(ABC):
    """A thread that calls one callback's hooks.

    Parameters
    ----------
    callback : Callback
    leave_out : callable
        Called once the callback has raised, or not returned in time.
    """

    what: ClassVar[str]
    goes_on: ClassVar[str] = "goes on"
    """Of what it tells, in words, and what that does whatever a hook does."""

    def __init__(self, callback: Callback, leave_out: Callable[[], None]) -> None:
        self.name = printable(_name(callback))
        self.patience = callback.patience
        self.thread = threading.Thread(
            target=copy_context().run,
            args=(self._follow,),
            name=f"scaleml-callback-{type(callback).__name__}",
            daemon=True,
        )
        self._callback, self._leave_out = callback, leave_out
        self._woken = threading.Event()
        self._hook = ""
        self._is_left_out = self._is_left_behind = False

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def wake(self) -> None:
        """Have it look now."""
        self._woken.set()

    @property
    def _runs(self) -> bool:
        return self.thread in threading.enumerate()  # a Ctrl-C in is_alive() marks it as ended (Python 3.11)

    def join(self, began: float) -> None:
        """Wait until it was told of the end, until its patience after ``began`` is over; then leave it behind."""
        if self._runs and not self._is_left_behind:
            self.thread.join(max(0.0, began + self.patience - WALL.now()))
            self.leave_behind(f"{self.patience:g} s after the end of the {self.what}")

    def leave_behind(self, when: str) -> None:
        """Do not wait for it any more. Should its hook return one day, it is still told of the end."""
        if self._runs and not self._is_left_behind:
            self._is_left_behind = True
            where = f"{self._hook} had not returned" if self._hook else "it had not been told of everything"
            why = f"The {self.what} is as it should be, and nobody waits for this any more: raise its patience, or have it do less"
            self._say(f"{where} {when}. {why}")

    # The thread.

    @abstractmethod
    def _follow(self) -> None:
        """Call the hooks."""

    def _tell(self, hook: str, *facts: object) -> bool:
        """Call a hook; return whether that went well."""
        self._hook = hook
        try:
            getattr(self._callback, hook)(*facts)
        except BaseException as error:  # noqa: BLE001  whatever it raises, the run goes on
            self._fail(hook, error)
            return False
        finally:
            self._hook = ""
        return True

    def _fail(self, hook: str, error: BaseException) -> None:
        _log.error("callback %s raised in %s", self.name, hook, exc_info=error)
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        self._say(
            f"{hook} raised {printable(what)}. The {self.what} {self.goes_on} without it: mend it, or leave it out; the traceback is logged"
        )

    def _say(self, what: str) -> None:
        """Leave the callback out from now on, and say so once, wherever else the same was said before."""
        if self._is_left_out:
            return
        self._is_left_out = True
        self._leave_out()
        text = f"callback {self.name}: {what} (logger {_log.name!r})"
        _log.warning("%s", text)
        with contextlib.suppress(RuntimeWarning):  # where warnings are errors it still hurts nobody
            warnings.warn_explicit(text, RuntimeWarning, __file__, 0, module=__name__, registry={})


@final
class Follower(Teller):
    """One callback and one run.

    Parameters
    ----------
    callback : Callback
    run : FollowedRun
    leave_out : callable
    """

    what = "run"

    def __init__(self, callback: Callback, run: FollowedRun, leave_out: Callable[[], None]) -> None:
        super().__init__(callback, leave_out)
        self._run: FollowedRun | None = run

    def start(self) -> None:
        """Begin; `Callback.for_run` is asked in the calling thread."""
        assert self._run is not None
        try:
            self._callback = self._callback.for_run(self._run)
        except Exception as error:  # noqa: BLE001  whatever it raises, the run goes on
            self._fail("for_run", error)
            return
        super().start()

    def _follow(self) -> None:
        run = self._run
        assert run is not None
        try:
            if self._tell("on_start", run):
                try:
                    self._tell_news(run)
                finally:
                    self._tell("on_end", run)
        finally:
            self._run = None  # nothing is to hold a run that is over

    def _tell_news(self, run: FollowedRun) -> None:
        """Tell of all that happens, until the run is over; who is left out only waits for that."""
        news, is_over = News(run), False
        while not is_over:
            is_over = run.over  # before the news: what is over has no more
            for event in () if self._is_left_out else news.read():
                hook = _HOOKS.get(type(event), "on_rows")
                if self._is_left_out or not self._tell(hook, run, event):
                    break
            if not is_over:
                self._woken.wait(self._callback.every)


@final
class EndTeller(Teller):
    """One callback, and the end of a comparison.

    Parameters
    ----------
    callback : Callback
    comparison : Comparison
    leave_out : callable
    """

    what = "comparison"
    goes_on = "is complete"

    def __init__(self, callback: Callback, comparison: Comparison, leave_out: Callable[[], None]) -> None:
        super().__init__(callback, leave_out)
        self._comparison = comparison

    def _follow(self) -> None:
        self._tell("on_comparison_end", self._comparison)


def _name(callback: Callback) -> str:
    """Return a callback's own repr, else its class; whatever the former raises."""
    kind = type(callback)
    try:
        return kind.__name__ if kind.__repr__ is object.__repr__ else repr(callback)
    except Exception:  # noqa: BLE001  of what is said about it no more is needed
        return kind.__name__
