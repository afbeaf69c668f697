"""Words for a run's failure: who was lost, stalled or late, by rank and worker, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from scaleml.cluster.failure_detector import Silence

LONG: Final = 3.0
"""Seconds without a beat that are no chance."""


def ranks_in_words(ranks: Sequence[int]) -> str:
    """Return some ranks in words.

    Examples
    --------
    >>> ranks_in_words([1]), ranks_in_words([0, 2])
    ('rank 1', 'ranks 0, 2')
    """
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def lost(ranks: Sequence[int], addresses: Sequence[str], at: str) -> str:
    """Return which ranks were lost ``at`` which step, with the workers of all ranks at ``addresses``."""
    names = ranks_in_words(ranks)
    gone = sorted({addresses[rank] for rank in ranks})
    if len(gone) > 1 and len(gone) == len(set(addresses)):
        return (
            f"{names} lost{at}: all Dask workers of the run are gone, so most likely the cluster was closed; start the "
            "run again on one that is there"
        )
    workers = f"the Dask worker {gone[0]} is" if len(gone) == 1 else f"the Dask workers {', '.join(gone)} are"
    return (
        f"{names} lost{at}: {workers} gone (killed, out of memory, closed, or its host failed); "
        "see that worker's log, and start the run again"
    )


def without_workers(wanted: Sequence[str], *, is_empty: bool, attempts: int) -> str:
    """Return why a run cannot go on on the workers that it was to be placed on, after so many ``attempts``."""
    names = ", ".join(wanted)
    if is_empty:
        return (
            f"the Dask workers that the run was to go on on, {names}, are gone as well, so most likely the cluster was closed; "
            "start the run again on one that is there"
        )
    return (
        f"the Dask workers that the run was to go on on, {names}, left again before it could (attempts: {attempts}); "
        "start the run again on workers that stay"
    )


def stalled(silence: Silence, address: str, at: str) -> str:
    """Return which rank is stalled, who waits for it, and ``at`` which step."""
    waiting = silence.waiting
    waits = f", while rank {waiting.rank} waited for it ({waiting.waiting_for})" if waiting is not None else ""
    why = {"stopped": "its process is stopped", "gone": "its process is gone"}.get(
        silence.process, "its process is stopped or hangs, or its host is out of reach"
    )
    return (
        f"rank {silence.rank} on worker {address} stalled{at}: it has not been heard for {silence.seconds:.0f} s, "
        f"and is silent to Dask as well{waits}: {why} (dask.config 'scaleml.comm.timeout')"
    )


def late_rank(missing: Collection[int], arrived: Collection[int], silence: Callable[[int], float]) -> tuple[int, float]:
    """Return whom of the ranks that have not entered to name, and for how many seconds it has not been heard.

    Who has arrived only waits for those who have not, or who do not answer.
    """
    absent = {*missing} - {*arrived}
    rank = min(absent or missing, key=lambda rank: (-(silence(rank) // LONG), rank))
    return rank, 0.0 if absent else silence(rank)


def late(rank: int, address: str, tasks: Sequence[str], silence: float, *, is_paused: bool) -> str:
    """Return why a rank has not entered in time, by its ``silence`` in seconds and the ``tasks`` that its worker runs."""
    if silence > LONG:
        return (
            f"rank {rank} on worker {address} did not enter in time: it has not been heard for {silence:.0f} s, so its process may be "
            "stopped or busy with one long call; see that worker's log, and start the run again"
        )
    if is_paused:
        return (
            f"rank {rank} on worker {address} did not enter in time: Dask has paused that worker, for its memory is nearly full; free "
            "some, pass workers= to use other workers, or give it more"
        )
    doing = (
        f"the worker is running {', '.join(tasks[:3])}"
        if tasks
        else "its worker's threads are not free, or it cannot reach the others"
    )
    return (
        f"rank {rank} on worker {address} did not enter in time: {doing}; wait for those tasks, pass workers= to use other "
        "workers, or raise dask.config 'scaleml.start-timeout'"
    )
