"""Submission of tasks: sealed, so that neither the scheduler nor a worker has to unpickle what it cannot."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from typing import TypedDict, TypeVar, Unpack

from distributed import Client, Future

from scaleml.data.sealed import seal

Answer = TypeVar("Answer")


class TaskSettings(TypedDict, total=False):
    """How a task is submitted; see ``Client.submit``."""

    key: str
    workers: list[str]
    allow_other_workers: bool
    retries: int
    resources: dict[str, float] | None
    priority: int


def submit(
    client: Client,
    function: Callable[..., Answer],
    *arguments: object,
    carried: Collection[str] = (),
    **settings: Unpack[TaskSettings],
) -> Future[Answer]:
    """Submit a call whose arguments may hold futures anywhere; as ``Client.submit``, and never pure.

    Parameters
    ----------
    carried : collection of str
        Modules that go along: see `scaleml.data.sealed.seal`.
    """
    call = seal(function, *arguments, apart=Future, carried=carried)
    given = {"key": f"{function.__name__}-{secrets.token_hex(8)}", **settings}
    return client.submit(call.call, *call.apart, pure=False, **given)
