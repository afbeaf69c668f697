"""Program: the Python code that does what the lab did, to be kept, shared and run without it."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from inspect import Parameter, signature
from typing import Any, Final

import numpy as np

from scaleml.api.compare import compare
from scaleml.api.trainable import Trainable
from scaleml.api.trial import Trial
from scaleml.lab import choices
from scaleml.models import Model
from scaleml.strategies import Strategy

WIDTH: Final = 88
"""Of a line, as formatters have it."""
_SHOWN: Final = 60
"""Characters of what can only be described."""
_OF_THE_LAB: Final = {"on_plan", "on_run"}
"""What only somebody who watches sets."""


def program_of(
    model: object, strategies: Sequence[Strategy | Trial], settings: Mapping[str, object], data: str | None = None
) -> str:
    """Return the program that makes the same comparison.

    What has no code that makes it again, such as arrays, a client or an object of a class that cannot be imported, is a name
    that is left to be filled in.

    Parameters
    ----------
    model : Model, estimator or Pipeline
    strategies : sequence of Strategy or Trial
    settings : mapping of str to object
        Of ``compare``; those that are at their default are left out.
    data : str, optional
        The data set, as ``scaleml.datasets.load`` takes it. Default: the user's own X and y.

    Returns
    -------
    str
        In lines of at most 88 characters, where they can be broken.

    Examples
    --------
    >>> from scaleml import AllReduce, LinearModel, Serial
    >>> print(program_of(LinearModel(), [Serial(), AllReduce()], {"epochs": 20, "seed": 0}, "digits"))
    import scaleml
    import scaleml.datasets
    from scaleml import AllReduce, LinearModel, Serial
    <BLANKLINE>
    data = scaleml.datasets.load("digits")
    comparison = scaleml.compare(
        LinearModel("log_loss"), data.X, data.y, [Serial(), AllReduce()], epochs=20
    )
    print(comparison.verdict)
    <BLANKLINE>
    """
    code = _Code()
    X, y = ("X", "y") if data is None else ("data.X", "data.y")
    arguments = [code.expression("model", model), X, y]
    trials = [code.expression(f"strategy_{i}", _short(trial)) for i, trial in enumerate(strategies, 1)]
    arguments.append(f"[{', '.join(trials)}]")
    arguments += [f"{name}={code.expression(name, value)}" for name, value in _told(model, settings)]
    load = "X, y = ...  # your data" if data is None else f"data = scaleml.datasets.load({_text(data)})"
    call = ast.parse(f"scaleml.compare({', '.join(arguments)})", mode="eval").body
    body = [load, *code.open, _laid_out(call, 0, "comparison = "), "print(comparison.verdict)"]
    heads = ["import scaleml", *([] if data is None else ["import scaleml.datasets"])]
    return "\n".join([*heads, *code.imports(), "", *body, ""])


def _short(trial: Strategy | Trial) -> Strategy | Trial:
    """Return a trial without settings of its own as its strategy."""
    return trial.strategy if isinstance(trial, Trial) and trial == Trial(trial.strategy) else trial


def _told(model: object, settings: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield the settings that are not what `compare` takes anyway, in its order."""
    usual: dict[str, object] = {}
    if isinstance(model, Model):  # an estimator has usual settings of its own
        usual = {field.name: choices.default(field) for field in fields(Trainable)}
    for name, parameter in signature(compare).parameters.items():
        known = parameter.kind is Parameter.KEYWORD_ONLY and name in settings and name not in _OF_THE_LAB
        value = settings[name] if known else None
        if value is not None and not any(_same(value, other) for other in (parameter.default, usual.get(name))):
            yield name, value.item() if isinstance(value, np.generic) else value


def _same(value: object, other: object) -> bool:
    return type(value) is type(other) and bool(value == other)


class _Code:
    """What the expressions of a program need: imports, and names that are left to be filled in."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self._kinds: dict[str, type] = {}

    def expression(self, name: str, value: object) -> str:
        """Return code that makes a value, or the name under which the user has to bring it."""
        text = _repr(value)
        kinds = {kind.__name__: kind for kind in _kinds(value)}
        if _is_code(text, kinds) and all(self._kinds.get(key, kind) is kind for key, kind in kinds.items()):
            self._kinds |= kinds
            return text
        about = " ".join(text.split())
        about = about if len(about) <= _SHOWN else f"{about[: _SHOWN - 3]}..."
        self.open.append(f"{name} = ...  # yours: {about}")
        return name

    def imports(self) -> list[str]:
        """Return the lines that import all classes, sorted."""
        found: dict[str, list[str]] = {}
        for name, kind in self._kinds.items():
            found.setdefault(_home(kind) or "", []).append(name)
        return [
            _import(home, sorted(names, key=lambda name: (not name.isupper(), name)))
            for home, names in sorted(found.items())
        ]


def _repr(value: object) -> str:
    whole: Any = type(value).__repr__
    if "N_CHAR_MAX" in signature(whole).parameters:  # scikit-learn cuts what is long
        return str(whole(value, N_CHAR_MAX=10**9))
    return repr(value)


def _is_code(text: str, kinds: Mapping[str, type]) -> bool:
    """Whether a repr is an expression of literals and of classes that can be imported."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except SyntaxError:
        return False
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    known = all(_home(kinds[name]) is not None if name in kinds else hasattr(builtins, name) for name in names)
    return known and not any(isinstance(node, ast.Constant) and node.value is ... for node in nodes)


def _kinds(value: object) -> Iterator[type]:
    """Yield the classes whose names a repr may have."""
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    elif hasattr(value, "get_params"):
        parts = list(value.get_params(deep=False).values())
    elif is_dataclass(value):
        parts = [getattr(value, field.name) for field in fields(value)]
    else:
        parts = []
    if type(value).__module__ != "builtins":
        yield type(value)
    for part in parts:
        yield from _kinds(part)


def _home(kind: type) -> str | None:
    """Return the module that a class is best imported from: the package that exports it; None where no other program could."""
    own, name = kind.__module__, kind.__name__
    parts = own.split(".")
    if own == "__main__":
        return None
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        if getattr(sys.modules.get(package), name, None) is kind:
            return package
    beside = [
        module
        for module, content in list(sys.modules.items())
        if module.partition(".")[0] == parts[0] and "._" not in module and vars(content).get(name) is kind
    ]
    return min(beside, key=lambda module: (module.count("."), module != own, module), default=None)


def _import(home: str, names: Sequence[str]) -> str:
    line = f"from {home} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"from {home} import (", *(f"    {name}," for name in names), ")"])


def _laid_out(node: ast.expr, indent: int, before: str = "", after: str = "") -> str:
    """Return an expression with what stands before and after it, broken into lines that fit, as formatters do."""
    flat = _flat(node)
    brackets = _brackets(node)
    if brackets is None or indent + len(before) + len(flat) + len(after) <= WIDTH:
        return f"{before}{flat}{after}"
    opening, parts, closing = brackets
    space, more = " " * indent, indent + 4
    body = ", ".join(label + _flat(part) for label, part in parts)
    if isinstance(node, ast.Call) and more + len(body) <= WIDTH:
        lines = [" " * more + body]
    else:
        lines = [" " * more + _laid_out(part, more, label, ",") for label, part in parts]
    return "\n".join([before + opening, *lines, f"{space}{closing}{after}"])


def _flat(node: ast.expr) -> str:
    """Return an expression in one line."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _text(node.value)
    brackets = _brackets(node)
    if brackets is None:
        return ast.unparse(node)
    opening, parts, closing = brackets
    comma = "," if isinstance(node, ast.Tuple) and len(parts) == 1 else ""
    return opening + ", ".join(label + _flat(part) for label, part in parts) + comma + closing


def _brackets(node: ast.expr) -> tuple[str, list[tuple[str, ast.expr]], str] | None:
    """Return how an expression begins, its parts with their names, and how it ends; None for one that is never broken."""
    if isinstance(node, ast.Call) and (node.args or node.keywords):
        named = [(f"{part.arg}=" if part.arg else "**", part.value) for part in node.keywords]
        return f"{ast.unparse(node.func)}(", [*(("", part) for part in node.args), *named], ")"
    if isinstance(node, ast.List | ast.Tuple) and node.elts:
        opening, closing = ("[", "]") if isinstance(node, ast.List) else ("(", ")")
        return opening, [("", part) for part in node.elts], closing
    if isinstance(node, ast.Dict) and node.keys:
        pairs = zip(node.keys, node.values, strict=True)
        return "{", [("**" if key is None else f"{_flat(key)}: ", part) for key, part in pairs], "}"
    return None


def _text(value: str) -> str:
    """Return a string as code, in double quotes where that needs no escapes."""
    text = repr(value)
    return text if '"' in value or text[0] == '"' else f'"{text[1:-1]}"'
