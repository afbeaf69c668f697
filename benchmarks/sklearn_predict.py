"""The other side of `dask_predict`: one of two processes that each predict their half of the rows with scikit-learn."""

import sys
import time
from typing import Any

from .dask_predict import ROWS, fitted, half
from .pairs import answer_requests, dial


def main() -> None:
    """Make this process's half, then predict it as often as the driver asks."""
    rank = int(sys.argv[2])
    x, model = half(rank), fitted()
    pipe = dial()
    pipe.send({"rank": rank})

    def answer(message: Any) -> dict[str, Any]:
        begun = time.perf_counter()
        labels = model.predict(x)
        return {"seconds": time.perf_counter() - begun, "rows": ROWS // 2, "sum": int(labels.sum())}

    answer_requests(pipe, answer)


if __name__ == "__main__":
    main()
