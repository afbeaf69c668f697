"""``doctor``: what is wrong with a cluster, before any run."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Final

import dask
from distributed import Client
from distributed.security import Security

from scaleml.clock import WALL
from scaleml.cluster import calls, config
from scaleml.cluster.diagnosis import problems_of
from scaleml.cluster.embedded import find_client
from scaleml.cluster.examination import examine
from scaleml.cluster.installation import mismatches
from scaleml.cluster.link_probe import probe
from scaleml.telemetry.cluster_report import ClusterReport
from scaleml.telemetry.links import Links
from scaleml.telemetry.problem import Problem, merged

_SCHEDULER: Final = 5.0
"""Seconds for the scheduler to answer."""


def doctor(client: Client | None = None) -> ClusterReport:
    """Examine a cluster before any run, and say what is wrong with it, each with its remedy.

    Asked is every worker, each with a deadline, by functions that need no scaleml there. Then each two workers that could take part in a
    run are linked for a moment as ranks are, with a secret drawn for it. Nothing is left on the cluster, and no task is sent.

    Parameters
    ----------
    client : distributed.Client, optional
        Default: the current one, else that of the embedded cluster.

    Returns
    -------
    ClusterReport
        ``ok``, ``problems``, ``table()`` of the workers, and ``links``: latency in seconds and bandwidth in bytes a second between each
        two workers (of more than 24, between 24 of them).

    Raises
    ------
    TypeError, ValueError
        For a client that is none, or closed.

    Examples
    --------
    >>> import scaleml
    >>> report = scaleml.doctor()  # doctest: +SKIP
    >>> report.ok, report.links.typical(same_host=True)  # doctest: +SKIP
    (True, (2.1e-05, 2310000000.0))
    """
    found, _ = find_client(client)
    began = WALL.now()
    scheduler = str(found.scheduler.address) if found.scheduler is not None else "unknown"
    tls = scheduler.startswith("tls")
    try:
        workers = calls.identity(found, _SCHEDULER)
    except (OSError, TimeoutError) as error:
        problem = Problem(
            "error", (), f"the scheduler {scheduler} does not answer ({error})", "look at its log; start it again"
        )
        return ClusterReport(scheduler, tls=tls, problems=(problem,), seconds=WALL.now() - began)
    workers = dict(sorted(workers.items(), key=lambda item: (str(item[1].get("name")).zfill(12), item[0])))
    examined = examine(found, workers)
    unfit = {who for problem in mismatches({a: one.installed for a, one in examined.items()}) for who in problem.who}
    problems: list[Problem] = []
    versions: dict[str, str] = {}
    links, count = Links(), None
    try:
        ports = config.port_range()
        count = None if ports is None else ports[1] - ports[0] + 1
        packages = calls.scheduler_versions(found)
        versions = {name: str(packages.get(name)) for name in ("dask", "distributed")}
        versions["Python"] = ".".join(str(packages.get("python")).split(".")[:3])
        links = probe(found, {a: one.report.host for a, one in examined.items() if a not in unfit})
    except ValueError as error:
        problems.append(Problem("error", (), str(error), "set it right in the configuration of Dask, or leave it out"))
    except (OSError, TimeoutError) as error:
        remedy = "look at the log of the scheduler"
        problems.append(Problem("error", (), f"links could not be measured ({error})", remedy))
    problems += problems_of(examined, links, tls=tls, ports=count)
    return ClusterReport(
        scheduler=scheduler,
        versions=versions,
        tls=tls,
        workers=tuple(one.report for one in examined.values()),
        links=links,
        problems=tuple(merged(problems)),
        seconds=WALL.now() - began,
    )


@contextlib.contextmanager
def connected(
    address: str | None = None,
    *,
    scheduler_file: str | None = None,
    tls_ca_file: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
) -> Iterator[Client | None]:
    """Yield a client of a cluster as ``dask worker`` is told of it; None, which is the embedded cluster, where nothing is said.

    Dask's configuration may say it (``scheduler-address``, ``DASK_SCHEDULER_ADDRESS``).

    Raises
    ------
    OSError
        When nobody answers there, with what to look at.
    """
    address = address or (None if scheduler_file else dask.config.get("scheduler-address", None))
    if address is None and scheduler_file is None:
        yield None
        return
    files = {"tls_ca_file": tls_ca_file, "tls_client_cert": tls_cert, "tls_client_key": tls_key}
    given = {name: file for name, file in files.items() if file is not None}
    security = Security(require_encryption=True, **given) if given else None
    where = f"the file {scheduler_file!r}" if address is None else address
    try:
        client = Client(
            address, scheduler_file=scheduler_file, security=security, timeout=_SCHEDULER, set_as_default=False
        )
    except (OSError, ValueError, TypeError, ssl.SSLError) as error:
        raise OSError(
            f"no Dask scheduler could be reached at {where} ({error}): is it running there, may this machine reach that port, and are "
            "--tls-ca-file, --tls-cert and --tls-key right, which a tls:// cluster needs?"
        ) from error
    with client:
        yield client
