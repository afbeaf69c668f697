"""Sealed calls: functions and arguments as Dask may carry them, pickled within, so that nothing of ours is unpickled on the way.

Dask's scheduler unpickles graphs, and a worker that cannot unpickle a task may end with all that it holds. Of a sealed call both see
bytes and one plain function, which travels by value: scaleml, and modules of the user's, are needed where it is called only.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, Final, TypeVar, cast, final

import cloudpickle

Answer = TypeVar("Answer")
Thing = TypeVar("Thing", bound=Callable[..., Any])

_EVERYWHERE: Final = sys.stdlib_module_names | {"__main__", "__mp_main__", "cloudpickle", "numpy", "scaleml"}
_lock: Final = threading.Lock()


def by_value(thing: Thing) -> Thing:
    """Have pickles hold a function or class itself, not its name: where it is unpickled needs no scaleml. It may use builtins only."""
    for part in (thing, *vars(thing).values()):
        if isinstance(part, type | FunctionType):
            part.__module__ = "__main__"
    return thing


@final
@dataclass(frozen=True)
class Sealed:
    """A sealed call.

    Parameters
    ----------
    call : callable
        What Dask is to call, with what is ``apart``, or with arguments that come before the sealed ones.
    apart : tuple
        Values of the arguments that Dask brings, such as futures.
    modules : frozenset of str
        Names of the modules that whoever calls it must be able to import, beside those of Python, NumPy and scaleml.
    """

    call: Callable[..., Any]
    apart: tuple[Any, ...]
    modules: frozenset[str]


def seal(
    function: Callable[..., Answer],
    *arguments: object,
    apart: type | tuple[type, ...] = (),
    carried: Collection[str] = (),
) -> Sealed:
    """Seal a call.

    Parameters
    ----------
    function : callable
        Called with what Dask passes beyond ``apart``, then the arguments.
    *arguments
        As they are now: what becomes of them later does not matter.
    apart : type or tuple of types
        Values of these types, wherever in the arguments, are left to Dask.
    carried : collection of str
        Modules whose classes and functions go along, for where it is called does not have them.

    Examples
    --------
    >>> sealed = seal(max, 3, 5)
    >>> sealed.call(), sealed.call(8), sorted(sealed.modules)
    (5, 8, [])
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, apart)
    with _carrying(carried):
        pickler.dump((function, arguments))
    needed = {name for name in pickler.modules - set(carried) if name.partition(".")[0] not in _EVERYWHERE}
    return Sealed(partial(_open, buffer.getvalue()), tuple(pickler.left), frozenset(needed))


def sealed(function: Callable[..., Answer], *arguments: object) -> Callable[..., Answer]:
    """Return what Dask is to call instead of a function, whose last arguments these are.

    Examples
    --------
    >>> sealed(divmod, 7)(30)
    (4, 2)
    """
    return cast("Callable[..., Answer]", seal(function, *arguments).call)


@by_value
class Parcel:
    """A value on its way from worker to worker, pickled until somebody opens it, once in each process."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def open(self) -> Any:
        """Return the value, the same one each time."""
        import pickle

        if not hasattr(self, "_value"):
            self._value = pickle.loads(self._payload)
        return self._value

    def __getstate__(self) -> dict[str, bytes]:
        return {"_payload": self._payload}

    def __sizeof__(self) -> int:
        return len(self._payload)


def parcel(value: object) -> Parcel:
    """Return a parcel of a value as it is now.

    Examples
    --------
    >>> parcel({"a": 1}).open()
    {'a': 1}
    """
    return Parcel(cloudpickle.dumps(value))


class _Pickler(cloudpickle.Pickler):
    """Leaves out what is apart, and notes whose classes, functions and modules are named."""

    def __init__(self, file: io.BytesIO, apart: type | tuple[type, ...]) -> None:
        super().__init__(file)
        self._apart = apart
        self.left: list[object] = []
        self.modules: set[str] = set()

    def persistent_id(self, value: object) -> int | None:
        if not isinstance(value, self._apart):
            return None
        self.left.append(value)
        return len(self.left) - 1

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, ModuleType):
            self.modules.add(value.__name__)
        elif isinstance(value, type | FunctionType) and _is_named(value):
            self.modules.add(value.__module__)
        return super().reducer_override(value)


def _is_named(value: type | FunctionType) -> bool:
    """Whether a pickle would hold the name only: one that its module knows."""
    found: object = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


@contextlib.contextmanager
def _carrying(modules: Collection[str]) -> Iterator[None]:
    """Have cloudpickle take modules along while the block lasts; those that the user has registered stay so."""
    if not modules:
        yield
        return
    with _lock:
        known = set(cloudpickle.list_registry_pickle_by_value())
        ours = [sys.modules[name] for name in modules if name not in known]
        try:
            for module in ours:
                cloudpickle.register_pickle_by_value(module)
            yield
        finally:
            for module in ours:
                cloudpickle.unregister_pickle_by_value(module)


@by_value
def _open(payload: bytes, *given: object, **named: object) -> object:
    """Unpickle a call and make it, on a worker or in whatever process Dask computes."""
    import io
    import pickle

    used = []
    apart = [*given]

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, number: int) -> object:
            used.append(number)
            return apart[number]

    try:
        function, arguments = Unpickler(io.BytesIO(payload)).load()
    except (ImportError, AttributeError) as error:
        import sys

        try:
            where = f"worker {sys.modules['distributed'].get_worker().address}"
        except (KeyError, ValueError):
            where = "this process"
        missing = str(getattr(error, "name", None) or "what it needs").partition(".")[0]
        raise ImportError(
            f"{where} cannot import {missing} ({error}): install it there in the same version as on the client; a module of your own "
            "can be sent with client.upload_file(path), or put on the workers' PYTHONPATH",
            name=missing,
        ) from error
    finally:
        apart.clear()  # a class goes when garbage is collected: not with what it has seen
    return function(*given[len(used) :], *arguments, **named)
