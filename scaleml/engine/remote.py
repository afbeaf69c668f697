"""A run from start to end on a cluster, for data that is checked already: what estimators call."""

from __future__ import annotations

from typing import Any

from scaleml.data.inputs import Inputs
from scaleml.engine.cluster import check_client, find_client
from scaleml.engine.collection import StagedInputs
from scaleml.engine.dataplane import Data
from scaleml.engine.errors import RunFailed
from scaleml.engine.placement import check_workers
from scaleml.engine.seceding import seceded
from scaleml.engine.settings import Settings
from scaleml.engine.spec import Outcome
from scaleml.engine.train import launch
from scaleml.models import Model


@seceded()
def train_there(
    model: Model,
    inputs: Inputs | StagedInputs,
    held_out: Inputs | None,
    *,
    workers: Any,
    client: Any,
    **settings: Any,
) -> Outcome:
    """Train on a cluster and return how it ended.

    Parameters
    ----------
    model : Model
    inputs, held_out : Inputs
        The data; ``held_out`` may be None.
    workers, client
        As for ``train``.
    **settings
        Of ``Settings``.

    Raises
    ------
    RunFailed
        When the run fails.
    KeyboardInterrupt
        After Ctrl-C; the ranks have ended.
    """
    chosen = Settings(model=model, keep_end=True, **settings)
    check_client(client)
    check_workers(workers)
    data = Data(model, inputs, None, None, held_out, chosen.seed)
    try:
        found, own = find_client(client, workers)
        run = launch(chosen, data, found, own, workers).wait()
    finally:
        data.close()
    if run.state == "stopped":
        raise KeyboardInterrupt
    if run.outcome is None:
        raise RunFailed("the run is over, but no rank could hand over its parameters: its workers are gone; fit again")
    return run.outcome
