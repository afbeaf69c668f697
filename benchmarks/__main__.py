"""Print a table of ratios, with the target beside each: ``python -m benchmarks [name ...]``."""

import importlib
import os
import sys
import traceback
from types import ModuleType

from .report import ONE_THREAD, Row, parser, show

NAMES = (
    "allreduce", "compression", "topologies", "numpy_loop", "two_ranks", "torch_loop", "start", "time_to_loss", "logistic",
    "dask_predict", "actors", "sparse", "stragglers", "recovery", "lab", "gpu",
)  # fmt: skip


def main() -> int:
    """Run what the command line names, everything by default; 1 if a benchmark failed or a target was missed."""
    options = parser(__doc__)
    options.add_argument("names", nargs="*", metavar="name", help=f"which: {', '.join(NAMES)} (default all)")
    options.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed, too")
    chosen = options.parse_args()
    unknown = sorted(set(chosen.names) - set(NAMES))
    if unknown:
        options.error(f"no benchmark is called {', '.join(unknown)}: there are {', '.join(NAMES)}")
    os.environ.update(ONE_THREAD)
    rows: list[Row] = []
    failed = False
    for name in chosen.names or NAMES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            module: ModuleType = importlib.import_module(f"benchmarks.{name}")
            rows += module.measure(chosen.rounds)
        except Exception as error:  # noqa: BLE001 - the other benchmarks still say something
            failed = True
            traceback.print_exc()
            rows.append(Row(name, "", None, None, "", None, note=f"failed: {type(error).__name__}: {error}"))
    show(rows, chosen.json)
    return int(failed or (chosen.strict and any(row.met is False for row in rows)))


if __name__ == "__main__":
    sys.exit(main())
