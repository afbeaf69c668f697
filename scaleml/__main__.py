"""``python -m scaleml``: ``demo`` compares strategies on real data, ``doctor`` examines a cluster, in a terminal."""

from __future__ import annotations

import ast
import os
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

import scaleml

_SETTINGS = ("Serial", "AllReduce", "ParameterServer", "Hogwild", "LocalSGD", "Gossip")
_DEFAULT = "Serial(), AllReduce(), ParameterServer('async'), LocalSGD(8)"


def read_strategies(text: str) -> list[Any]:
    """Return the strategies that a text such as ``"Serial(), LocalSGD(8)"`` names; nothing else is evaluated.

    Raises
    ------
    click.BadParameter
        For anything but calls of strategies with plain values.
    """
    try:
        body = ast.parse(f"[{text}]", mode="eval").body
        if not isinstance(body, ast.List):
            raise ValueError("it is more than one list")
        return [_strategy(node) for node in body.elts]
    except SyntaxError:
        raise click.BadParameter(
            f"{text!r}: check its brackets, quotes and commas; write them as in {_DEFAULT!r}"
        ) from None
    except (TypeError, ValueError) as error:
        raise click.BadParameter(f"{text!r}: {error}; write them as in {_DEFAULT!r}") from None


def read_widths(text: str) -> tuple[int, ...]:
    """Return the widths of hidden layers that a text such as ``"256,64"`` names; none for an empty one.

    Raises
    ------
    click.BadParameter
        For anything but positive integers.
    """
    widths = [width.strip() for width in text.split(",") if width.strip()]
    if not all(width.isdecimal() and int(width) for width in widths):
        raise click.BadParameter(f"{text!r}: write positive integers, such as 256,64", param_hint="--hidden")
    return tuple(int(width) for width in widths)


def _strategy(node: ast.expr) -> Any:
    arguments: list[Any] = []
    settings: dict[str, Any] = {}
    if isinstance(node, ast.Call):
        arguments = [ast.literal_eval(argument) for argument in node.args]
        settings = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
        node = node.func
    if not isinstance(node, ast.Name) or node.id not in _SETTINGS:
        raise ValueError(f"{ast.unparse(node)!r} is none of {', '.join(_SETTINGS)}")
    return getattr(scaleml, node.id)(*arguments, **settings)


@dataclass(frozen=True)
class Part:
    """One comparison of the demo."""

    data: str
    hidden: tuple[int, ...] = ()
    learning_rate: float = 0.1
    batch_size: int = 256
    epochs: int = 5


# What the demo shows when nothing is chosen: data too small to scale, and data that is worth it.
_PARTS = (
    Part("digits", (), 0.5, 64, 10),
    Part("generated:60000x784", (256,), 0.1, 512, 3),
)


@click.group()
@click.version_option(scaleml.__version__, prog_name="scaleml")
def main() -> None:
    """Train under any scaling strategy; see what each one costs."""


@main.command()
@click.option(
    "--data",
    help="digits, breast_cancer, wine, diabetes, generated[:ROWSxCOLUMNS], polarity, cifar10, or a file: "
    ".csv, .tsv, .parquet, .npz, .svmlight",
)
@click.option("--target", "column", help="the column to predict, in a file")
@click.option("--strategies", default=_DEFAULT, show_default=True, help="what to compare")
@click.option("--hidden", default=None, help="hidden layers of an MLP, such as 256,64; none: a linear model")
@click.option(
    "--learning-rate", type=click.FloatRange(0, min_open=True), default=None, help="of SGD, for all strategies"
)
@click.option("--batch-size", type=click.IntRange(1), default=None, help="rows of one step over all ranks")
@click.option("--epochs", type=click.IntRange(1), default=None, help="passes over the data")
@click.option("--workers", type=click.IntRange(1), default=None, help="ranks; default one a core, at least two")
@click.option("--loss", type=float, default=None, help="the held-out loss that counts; default what all reached")
@click.option("--repeats", type=click.IntRange(1), default=None, help="rounds; default as many as fit the budget")
@click.option("--tune", type=click.IntRange(1, 35), default=None, help="settings that every strategy tries first")
@click.option(
    "--budget",
    type=click.FloatRange(0, min_open=True),
    default=None,
    help="seconds for one data set; default 60, stretched to five rounds where those are short",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=pathlib.Path), default="comparison.html", show_default=True
)
def demo(
    data: str | None,
    column: str | None,
    strategies: str,
    hidden: str | None,
    learning_rate: float | None,
    batch_size: int | None,
    epochs: int | None,
    workers: int | None,
    loss: float | None,
    repeats: int | None,
    tune: int | None,
    budget: float | None,
    seed: int,
    output: pathlib.Path,
) -> None:
    """Compare strategies on data, with live progress, a table, a verdict and an HTML page."""
    chosen = read_strategies(strategies)
    folder = output.resolve().parent
    if not os.access(folder, os.W_OK):
        raise click.BadParameter(f"{str(output)!r}: {str(folder)!r} is no folder to write to", param_hint="--output")
    parts = list(_PARTS) if data is None else [next((part for part in _PARTS if part.data == data), Part(data))]
    given: dict[str, Any] = {"learning_rate": learning_rate, "batch_size": batch_size, "epochs": epochs}
    if hidden is not None:
        given["hidden"] = read_widths(hidden)
    parts = [replace(part, **{name: value for name, value in given.items() if value is not None}) for part in parts]
    from scaleml.escaping import printable

    try:
        settings = {"target": loss, "repeats": repeats, "tune": tune, "budget": budget, "seed": seed}
        results = _compare_all(parts, column, chosen, workers, settings)
    except (ValueError, TypeError, OSError, scaleml.RunFailed) as error:
        raise click.ClickException(printable(error)) from error
    if not any(result.runs for result in results.values()):
        raise click.ClickException(" ".join(str(result.verdict) for result in results.values()))
    _write(results, output)
    if any(run.state == "stopped" for result in results.values() for run in result.runs):
        sys.exit(130)  # as a shell says of what Ctrl-C ended
    if all(run.state == "failed" for result in results.values() for run in result.runs):
        sys.exit(1)


@main.command()
@click.argument("address", required=False)
@click.option("--scheduler-file", type=click.Path(dir_okay=False), help="of the scheduler, instead of its address")
@click.option("--tls-ca-file", type=click.Path(dir_okay=False), help="the authority's certificate, in PEM format")
@click.option("--tls-cert", type=click.Path(dir_okay=False), help="the client's certificate")
@click.option("--tls-key", type=click.Path(dir_okay=False), help="the client's key")
def doctor(address: str | None, **files: str | None) -> None:
    """Examine the cluster at ADDRESS, such as tcp://host:8786: what is wrong with it, each with its remedy.

    Without an address that of Dask's configuration, else the cluster that scaleml starts on this machine. Exit status 1 when there are
    errors: runs would fail or be refused.
    """
    from scaleml.api.doctor import connected

    try:
        with connected(address, **files) as client:
            report = scaleml.doctor(client)
    except (OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(repr(report))
    sys.exit(0 if report.ok else 1)


def _compare_all(
    parts: Sequence[Part], column: str | None, chosen: list[Any], workers: int | None, settings: dict[str, Any]
) -> dict[str, Any]:
    from rich.console import Console

    from scaleml.telemetry.terminal import view

    console = Console()
    results = {}
    for part in parts:
        results[part.data] = result = _compare(part, column, chosen, workers, settings, console)
        console.print(view(result, console.width))
        if any(run.state == "stopped" for run in result.runs):
            break
    return results


def _compare(
    part: Part,
    column: str | None,
    chosen: list[Any],
    workers: int | None,
    settings: dict[str, Any],
    console: Any,
) -> Any:
    from rich.text import Text

    from scaleml import datasets
    from scaleml.cluster.embedded import embedded_size
    from scaleml.escaping import printable
    from scaleml.frameworks.suited import suited

    dataset = datasets.load(part.data, target=column, seed=settings["seed"])
    classes = dataset.task == "classification"
    loss: Any = "log_loss" if classes else "squared_error"
    model: Any = suited(dataset.X)
    if model is None:
        model = scaleml.MLP(part.hidden, loss=loss) if part.hidden else scaleml.LinearModel(loss=loss)
    rate = part.learning_rate if classes else min(part.learning_rate, 0.05)
    # As text, for names of files and columns may look like markup.
    console.rule(Text(printable(dataset.name), "bold"))
    how = f"{model!r}, batch {part.batch_size}, SGD({rate:g}), {part.epochs} epochs"
    console.print(Text(printable(f"{dataset.description}\n{how}")))
    return scaleml.compare(
        model, dataset.X, dataset.y, chosen,
        optimizer=scaleml.SGD(rate), epochs=part.epochs, batch_size=part.batch_size,
        workers=workers or max(2, embedded_size()), **settings,
    )  # fmt: skip


def _write(results: dict[str, Any], output: pathlib.Path) -> None:
    from scaleml.telemetry import report

    report.write(results, output)
    click.echo(f"wrote {output.resolve()}")


if __name__ == "__main__":
    main()
