"""Execute notebooks in place, and keep of their outputs what a reader sees: no timestamps, no widget state.

    python notebooks/execute.py             all of them
    python notebooks/execute.py 02*.ipynb   some
    python notebooks/execute.py --set EPOCHS=2 --output small.ipynb 02*.ipynb

Each notebook has one cell tagged `parameters`: plain assignments that ``--set`` overrides in a cell of its own after it.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Of addresses in more alphabets than notebooks' rules ask for; to compile its grammar takes four times as long as all that follows.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import nbformat  # noqa: E402
from nbclient import NotebookClient  # noqa: E402
from nbclient.exceptions import CellExecutionError  # noqa: E402

HERE = Path(__file__).resolve().parent
KERNEL = {
    "name": "python3",
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
}
WIDGET = "application/vnd.jupyter.widget-view+json"
SECONDS_A_CELL = 300


def execute(path: Path, settings: Mapping[str, Any] | None = None) -> Any:
    """Run all cells of a notebook in a fresh kernel, and return the notebook with its outputs.

    Parameters
    ----------
    path : Path
        The notebook; it is not written.
    settings : mapping of str to value, optional
        What replaces assignments of its cell of parameters.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        With the traceback, when a cell fails.
    ValueError
        For a setting that the cell of parameters does not have.
    """
    notebook = nbformat.read(path, as_version=4)
    if settings:
        _override(notebook, settings)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_A_CELL,
        kernel_name="python3",
        extra_arguments=[
            "--IPKernelApp.log_level=ERROR"
        ],  # it warns of its ports, which are this machine's own
        store_widget_state=False,
        record_timing=False,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    client.execute()
    return notebook


def clean(notebook: Any) -> Any:
    """Leave out of a notebook what changes from run to run or needs a kernel; returns it."""
    notebook.metadata = nbformat.NotebookNode(
        kernelspec=KERNEL, language_info={"name": "python"}
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.NotebookNode(
            {k: v for k, v in cell.metadata.items() if k == "tags"}
        )
        for output in cell.get("outputs", []):
            output.pop("transient", None)
            data = output.get("data", {})
            if "text/html" in data:
                data.pop(WIDGET, None)
                if "data:image/png" in data["text/html"]:
                    data.pop("image/png", None)  # the same picture: once is enough
    return notebook


def _override(notebook: Any, settings: Mapping[str, Any]) -> None:
    at = next(
        i
        for i, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", [])
    )
    known = {
        target.id
        for line in ast.parse(notebook.cells[at].source).body
        if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name)
    }
    if unknown := settings.keys() - known:
        raise ValueError(
            f"{', '.join(sorted(unknown))}: the notebook has no such parameter; it has {sorted(known)}"
        )
    source = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(source))


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, ast.literal_eval(value)


def main() -> None:
    """Execute what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "notebooks", nargs="*", type=Path, help="default: all beside this script"
    )
    parser.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
    )
    parser.add_argument(
        "--output", type=Path, help="write there instead; for one notebook"
    )
    arguments = parser.parse_args()
    notebooks = arguments.notebooks or sorted(HERE.glob("*.ipynb"))
    if arguments.output is not None and len(notebooks) != 1:
        parser.error("--output takes one notebook")
    for path in notebooks:
        try:
            notebook = clean(execute(path, dict(arguments.settings)))
        except CellExecutionError as error:
            sys.exit(f"{path}: {error}")
        target = arguments.output or path
        nbformat.write(notebook, target)
        print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
