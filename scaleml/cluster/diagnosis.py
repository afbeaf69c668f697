"""Diagnosis: from what workers and links showed to what is wrong, each with its remedy. Pure: nobody is asked here."""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Final

from scaleml.cluster.examination import Examined
from scaleml.cluster.installation import mismatches
from scaleml.cluster.user_modules import FRAMEWORKS, version_of
from scaleml.telemetry.cluster_report import WorkerReport
from scaleml.telemetry.formatting import seconds, size
from scaleml.telemetry.links import Link, Links
from scaleml.telemetry.problem import Problem, named

CLOCKS: Final = 1.0
"""Seconds that a clock may differ."""
ROOM: Final = 64 << 20
"""Bytes of ``/dev/shm`` that a rank should find: what containers have."""
FULL: Final = 0.7
"""Share of a worker's memory limit above which Dask pauses it soon."""
SLOW: Final = 5.0
"""How many times worse than the median of its kind a link is to be named."""


def problems_of(examined: Mapping[str, Examined], links: Links, *, tls: bool, ports: int | None) -> Iterator[Problem]:
    """Yield what is wrong.

    Parameters
    ----------
    examined : mapping
        By address.
    links : Links
        As far as they were measured.
    tls : bool
        Whether the cluster is encrypted.
    ports : int or None
        How many ports ranks may listen on; None for any.
    """
    reports = [one.report for one in examined.values()]
    heard = [report for report in reports if report.host]
    if not reports:
        yield Problem(
            "error", (), "the cluster has no workers", "add some: cluster.scale(2), or dask worker <scheduler>"
        )
    yield from mismatches({address: one.installed for address, one in examined.items()})
    yield from _blocked(links)
    for report in reports:
        if report.status not in ("running", "init"):
            what = f"is {report.status.replace('_', ' ')}"
            yield Problem(
                "error",
                (report.address,),
                what,
                "it takes no tasks: free its memory if it is paused, else wait for another",
            )
    for check in (_alike, _frameworks, _clocks, _memory):
        yield from check(heard)
    for group in _by(heard, lambda report: report.host):
        yield from _host(group, ports)
    yield from _slow(links)
    bare = tuple(report.address for report in reports if not report.nanny and not report.address.startswith("inproc"))
    if bare:
        yield Problem("note", bare, "has no nanny", "leave --no-nanny out where nothing else starts lost workers again")
    if not tls and len({report.host for report in heard}) > 1:
        what = "what goes between hosts is not encrypted"
        yield Problem("note", (), what, "on a network that others share, start the cluster with --protocol tls")


def _by(reports: Sequence[WorkerReport], key: Callable[[WorkerReport], str]) -> list[list[WorkerReport]]:
    groups: dict[str, list[WorkerReport]] = defaultdict(list)
    for report in reports:
        groups[key(report)].append(report)
    return list(groups.values())


def _blocked(links: Links) -> Iterator[Problem]:
    """Name who cannot be reached: one worker, if it is the one that all failed links have."""
    failed = links.failed
    count = Counter(worker for link in failed for worker in set(link.workers))
    others = len(links.workers) - 1
    partners = {
        worker: {w for link in failed if worker in link.workers for w in link.workers} - {worker} for worker in count
    }
    cut_off = [worker for worker in count if others > 1 and len(partners[worker]) == others]
    for worker in cut_off:
        one = next(link for link in failed if worker in link.workers)
        yield Problem("error", (worker,), f"has no link to any other worker ({_why(one)})", _remedy(one))
    for link in failed:
        if not set(link.workers) & set(cut_off):
            listener, dialler = link.workers
            what = f"cannot be reached by {named([dialler])} ({_why(link)})"
            yield Problem("error", (listener,), what, _remedy(link))


def _why(link: Link) -> str:
    return f"{link.at}: {link.error}" if link.at else link.error


def _remedy(link: Link) -> str:
    if link.at.startswith(("127.", "localhost", "::1")):
        return "it is known by an address of its own host alone: start it with --host, or --contact-address, as others reach it"
    return (
        "open the ports between these workers: any, or a range by dask.config 'scaleml.comm.port-range' (docs/on-your-cluster.md, "
        "Firewalls)"
    )


def _alike(reports: Sequence[WorkerReport]) -> Iterator[Problem]:
    """Name who differs from most in what may differ, at a price."""
    rules: tuple[tuple[str, Callable[[WorkerReport], str], str], ...] = (
        (
            "BLAS",
            lambda r: r.blas,
            "the last bits of a result depend on who did what: use one image or environment for all",
        ),
        (
            "BLAS kernels",
            lambda r: r.processor,
            "the last bits of a result depend on who did what, and slow ranks hold up the others: use alike machines",
        ),
        (
            "threads",
            lambda r: str(r.threads),
            "all ranks take as many BLAS threads as the one with the fewest: start all alike",
        ),
    )
    for what, value, remedy in rules:
        most = Counter(value(report) for report in reports if value(report))
        usual = most.most_common(1)[0][0] if most else ""
        for report in reports:
            if value(report) and value(report) != usual:
                yield Problem(
                    "warning", (report.address,), f"has other {what} ({value(report)}) than most ({usual})", remedy
                )
    for name in ("dask", "distributed"):
        here = metadata.version(name)
        for report in reports:
            there = getattr(report, name)
            if there and there != here:
                what = f"has {name} {there}, this process {here}"
                yield Problem(
                    "warning",
                    (report.address,),
                    what,
                    f"install {name}=={here} there: Dask's own versions should be one",
                )
    for report in reports:
        if report.python != platform.python_version():
            what = f"has Python {report.python}, this process {platform.python_version()}"
            yield Problem("note", (report.address,), what, "nothing, as long as the first two numbers are the same")


def _frameworks(reports: Sequence[WorkerReport]) -> Iterator[Problem]:
    """Name who has not the frameworks of this process, whose models travel there pickled."""
    for name in FRAMEWORKS:
        here = version_of(name)
        for report in reports if here else ():
            there = getattr(report, name).partition("+")[0]  # builds such as +cpu are no difference
            install = f"install {name}=={here} there"
            if not there:
                what = f"has no {name}, this process {here}"
                yield Problem("note", (report.address,), what, f"{install} to train models of it")
            elif there != here:
                what = f"has {name} {there}, this process {here}"
                yield Problem("warning", (report.address,), what, f"{install}: models of it are refused until then")


def _clocks(reports: Sequence[WorkerReport]) -> Iterator[Problem]:
    for report in reports:
        if abs(report.clock) > CLOCKS:
            way = "ahead of" if report.clock > 0 else "behind"
            what = f"has a clock {seconds(abs(report.clock))} {way} this process's"
            yield Problem(
                "warning",
                (report.address,),
                what,
                "set the clocks by NTP: logs do not fit together, certificates may not hold",
            )


def _memory(reports: Sequence[WorkerReport]) -> Iterator[Problem]:
    for report in reports:
        if report.memory_limit and report.memory_used > FULL * report.memory_limit:
            what = f"has {size(report.memory_used)} of its limit of {size(report.memory_limit)} of memory in use"
            yield Problem(
                "warning", (report.address,), what, "free what it holds (client.restart()), or raise --memory-limit"
            )


def _host(reports: Sequence[WorkerReport], ports: int | None) -> Iterator[Problem]:
    """Check the workers of one host together."""
    who = tuple(report.address for report in reports)
    first = reports[0]
    busy = sum(report.threads for report in reports)
    if first.cores and busy > first.cores:
        what = f"has a share of {first.cores} cores that {len(who)} workers of its host have {busy} threads on"
        yield Problem("warning", who, what, "ranks will hold each other up: start fewer workers or threads there")
    if len(who) > 1 and first.shm_free < ROOM * len(who):
        has = f"has {size(first.shm_free)} free in /dev/shm" if first.shm else "has no /dev/shm"
        remedy = "give containers more (docker --shm-size, a volume of medium Memory), or ranks there exchange by files and sockets"
        yield Problem("warning", who, f"{has} for {len(who)} workers of its host", remedy)
    if ports is not None and ports < len(who):
        what = f"is one of {len(who)} on its host, and scaleml.comm.port-range has {ports} ports"
        yield Problem("error", who, what, "widen the range: each rank of a host needs a port")
    for report in reports:
        if report.gpus and not report.cupy:
            what = f"has {len(report.gpus)} GPU{'s' * (len(report.gpus) != 1)} ({report.gpus[0]}), but no CuPy"
            yield Problem("note", (report.address,), what, "install cupy there to train on them")


def _slow(links: Links) -> Iterator[Problem]:
    """Name links between hosts that are far worse than most of them."""
    between = [link for link in links.links if not link.same_host and not link.error]
    latency, bandwidth = links.typical(same_host=False)
    for link in between:
        if link.bandwidth < bandwidth / SLOW:
            how = f"at {size(link.bandwidth)}/s, where {size(bandwidth)}/s are usual"
        elif link.latency > SLOW * latency:
            how = f"after {seconds(link.latency)}, where {seconds(latency)} are usual"
        else:
            continue
        what = f"reaches {named([link.workers[1]])} {how}"
        yield Problem(
            "warning", (link.workers[0],), what, "look at the network between them; workers= leaves hosts out"
        )
