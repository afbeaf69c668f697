"""Settings by name: whoever calls with one that there is not is told where it belongs, or what it is called here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import Parameter, signature
from typing import ParamSpec, TypeVar

from scaleml.api import hints

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def named_settings(
    known: Sequence[str] | None = None,
) -> Callable[[Callable[Arguments, Returned]], Callable[Arguments, Returned]]:
    """Make a decorator that refuses settings which a function does not have, before it is called.

    Parameters
    ----------
    known : sequence of str, optional
        All names that it takes; default those of its parameters.

    Examples
    --------
    >>> @named_settings()
    ... def train(model, *, optimizer=None, epochs=5): ...
    >>> train("a model", max_iter=3)
    Traceback (most recent call last):
    TypeError: train() has no setting 'max_iter'. Did you mean 'epochs'? Settings: optimizer, epochs
    >>> train("a model", 3)
    Traceback (most recent call last):
    TypeError: train() takes model by position, but 2 arguments were given so: give settings by name, such as optimizer=...
    """

    def decorated(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
        parameters = signature(function).parameters
        called = function.__qualname__.removesuffix(".__init__").removesuffix(".__new__")
        named = tuple(name for name in known or parameters if name not in ("self", "cls"))
        placed = [name for name, one in parameters.items() if one.kind is Parameter.POSITIONAL_OR_KEYWORD]
        settings = [name for name in named if name not in placed]
        takes_any = any(one.kind is Parameter.VAR_POSITIONAL for one in parameters.values())

        @wraps(function)
        def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
            for name in kwargs:
                if name not in named:
                    hint = hints.of_setting(name, named)
                    raise TypeError(
                        f"{called}() has no setting {name!r}.{hint} Settings: {', '.join(settings or named)}"
                    )
            if len(args) > len(placed) and not takes_any:
                own = [name for name in placed if name != "self"]
                given = len(args) - len(placed) + len(own)
                raise TypeError(
                    f"{called}() takes {', '.join(own)} by position, but {given} arguments were given so: give settings by name, such as "
                    f"{settings[0]}=..."
                )
            return function(*args, **kwargs)

        return checked

    return decorated
