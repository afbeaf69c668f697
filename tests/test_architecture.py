"""Who may import whom: the design's section 3 as a table, and a walk over every import of the package."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rooms import ONLY_IN, ROOMS, USERS, WITHOUT

PACKAGE = Path(__file__).resolve().parents[1] / "scaleml"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))
LINES = 320

# What a rank must not load: sklearn alone takes longer than a whole recovery may.
TOO_HEAVY = (
    "torch",
    "jax",
    "keras",
    "tensorflow",
    "sklearn",
    "pandas",
    "dask.array",
    "dask.dataframe",
    "matplotlib",
    "rich",
    "ipywidgets",
    "bqplot",
)
OF_A_RANK = ("cluster.rank_task", "strategies", "models", "optim", "comm", "compression", "faults")


@dataclass(frozen=True)
class Arrow:
    """One import: of `target`, in `room`, at a line. Targets inside the package begin with ``scaleml.``."""

    room: str
    target: str
    line: int


def room_of(module: Path) -> str:
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def arrows(source: str, module: Path) -> Iterator[Arrow]:
    """Yield every import of a module, also those inside functions, under ``TYPE_CHECKING`` and by a constant name."""
    room = room_of(module)
    package = ("scaleml", *module.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                for name in names:
                    yield Arrow(room, name.name, node.lineno)
            case ast.ImportFrom(module=name, level=level, names=names):
                base = package[: len(package) - level + 1] if level else ()
                origin = ".".join((*base, *(name.split(".") if name else ())))
                for alias in names if origin == "scaleml" else [None]:
                    yield Arrow(room, f"scaleml.{alias.name}" if alias else origin, node.lineno)
            case ast.Call(func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module")):
                if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                    called = node.args[0].value
                    dots = len(called) - len(called.lstrip("."))
                    base = package[: len(package) - dots + 1] if dots else ()
                    yield Arrow(room, ".".join((*base, called.lstrip("."))), node.lineno)


def complaint(arrow: Arrow) -> str | None:
    """Say what is wrong with an import, or None."""
    room, (top, *rest) = arrow.room, arrow.target.split(".")
    if top != "scaleml":
        if top in ONLY_IN and room not in ONLY_IN[top]:
            return f"{room} imports {arrow.target}: only {', '.join(sorted(ONLY_IN[top]))} may"
        if top in WITHOUT.get(room, ()):
            return f"{room} imports {arrow.target}: it must do without"
        if arrow.target.startswith("matplotlib.pyplot"):
            return f"{room} imports pyplot, which is not safe on sub-shells: use matplotlib.figure.Figure"
        return None
    if room not in ROOMS:
        return f"{room} is no room of the design: add it to the table, with what it may import"
    target = rest[0] if rest else ""
    if target in {room, "__version__"}:
        return None
    if target not in ROOMS and room in USERS:
        return None
    if target not in ROOMS:
        return f"{room} imports {arrow.target or 'scaleml'} from the package's front door: import it from its room"
    if target not in ROOMS[room]:
        allowed = ", ".join(sorted(ROOMS[room])) or "nothing of scaleml"
        return f"{room} imports scaleml.{target}: it may import {allowed}"
    return None


def complaints(source: str, module: Path) -> list[str]:
    return [f"line {arrow.line}: {text}" for arrow in arrows(source, module) if (text := complaint(arrow))]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_imports_go_the_way_of_the_design(module: Path) -> None:
    assert complaints(module.read_text(), module) == []


def test_browser_tests_are_where_make_looks_for_them() -> None:
    marked = {path.parent for path in TESTS if path != Path(__file__) and "pytest.mark.browser" in path.read_text()}
    assert marked == {PACKAGE.parent / "tests" / "lab"}


@pytest.mark.parametrize("module", [*MODULES, *TESTS], ids=lambda module: str(module.relative_to(PACKAGE.parent)))
def test_modules_are_short(module: Path) -> None:
    lines = len(module.read_text().splitlines())
    assert lines <= LINES


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Function-level and type-checking imports count: what needs each other belongs together, or behind a protocol."""
    names = {module_name(module): module for module in MODULES}
    graph = {name: sorted(imports_of(module, names) - {name}) for name, module in names.items() if name != "scaleml"}
    assert circles(graph) == []


def module_name(module: Path) -> str:
    parts = module.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(module: Path, names: dict[str, Path]) -> set[str]:
    """Return the package's modules that a module names in its imports; `from room import thing` is `room`, or `room.thing`."""
    package = ("scaleml", *module.relative_to(PACKAGE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*base, *(node.module.split(".") if node.module else ())))
            for alias in node.names:
                longer = f"{origin}.{alias.name}"
                found.add(longer if longer in names else origin)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & names.keys() - {"scaleml"}


def circles(graph: dict[str, list[str]]) -> list[str]:
    """Return the groups of modules that reach each other (Tarjan's strongly connected components of more than one)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[str] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in graph.get(name, []):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(", ".join(sorted(group)))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_a_circle_is_found() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) == ["a, b, c"]


@pytest.mark.parametrize("folder", ["strategies", "compression", "comm/collectives"])
def test_strategies_codecs_and_topologies_know_the_communicator_only(folder: str) -> None:
    """Neither links nor simulated ones: what they are written against is a protocol, so they run on whatever has it."""
    known = {"scaleml.comm", "scaleml.comm.communicator", "scaleml.comm.conventions", "scaleml.comm.collectives"}
    named = {
        arrow.target
        for module in (PACKAGE / folder).glob("*.py")
        for arrow in arrows(module.read_text(), module)
        if arrow.target.startswith("scaleml.comm") and not arrow.target.startswith("scaleml.comm.collectives.")
    }
    assert named <= known


def test_every_module_belongs_to_a_room() -> None:
    assert {room_of(module) for module in MODULES} <= ROOMS.keys()


def test_the_rooms_of_the_table_have_no_cycle() -> None:
    def reach(room: str, path: tuple[str, ...]) -> None:
        assert room not in path, " -> ".join((*path, room))
        for target in ROOMS[room]:
            reach(target, (*path, room))

    for room in ROOMS:
        reach(room, ())


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("strategies/x.py", "import time"),
        ("runtime/x.py", "from time import perf_counter"),
        ("strategies/x.py", "from threading import Thread"),
        ("strategies/x.py", "from dask.distributed import Client"),
        ("runtime/x.py", "from distributed import Client"),
        ("runtime/x.py", "import dask"),
        ("strategies/x.py", "from ..runtime import plan"),
        ("strategies/deep/x.py", "from ...runtime import plan"),
        ("comm/x.py", "import distributed.comm"),
        ("comm/x.py", "from pickle import loads"),
        ("comm/x.py", "from scaleml.models import MLP"),
        ("models/x.py", "def f():\n    import cupy"),
        ("runtime/x.py", "import torch"),
        ("models/x.py", "from scaleml.frameworks import layout"),
        ("models/x.py", "from .. import comm"),
        ("telemetry/x.py", "from scaleml import comm"),
        ("telemetry/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..api.run import Run"),
        ("telemetry/x.py", "import importlib\nimportlib.import_module('..api', __package__)"),
        ("cluster/x.py", "from scaleml.api import run"),
        ("lab/x.py", "from matplotlib import pyplot\nimport distributed"),
        ("lab/x.py", "import matplotlib.pyplot as plt"),
        ("optim.py", "import scaleml"),
        ("optim.py", "from scaleml import AllReduce"),
        ("attic/x.py", "from ..arrays import rows"),
    ],
)
def test_a_forbidden_arrow_is_found(room: str, source: str) -> None:
    assert len(complaints(source, PACKAGE / room)) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("strategies/x.py", "import numpy\nfrom ..comm.communicator import Communicator\nfrom .base import Strategy"),
        ("cluster/x.py", "import distributed\nfrom scaleml import strategies\nfrom ..telemetry import history"),
        ("cluster/x.py", "from .. import __version__"),
        ("arrays.py", "def f():\n    import cupy"),
        ("clock.py", "import time"),
        ("frameworks/torch.py", "import torch\nfrom scaleml.models.base import Model"),
        ("__main__.py", "import scaleml\nfrom scaleml import train"),
    ],
)
def test_an_allowed_arrow_is_let_through(room: str, source: str) -> None:
    assert complaints(source, PACKAGE / room) == []


def test_what_a_rank_imports_is_light() -> None:
    wanted = [name for name in OF_A_RANK if _exists(name)]
    lines = [f"import scaleml.{name}" for name in wanted]
    lines += ["import sys", f"print(*[name for name in {TOO_HEAVY!r} if name in sys.modules])"]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def _exists(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
