"""Cluster report: what a cluster is, and what is wrong with it, before any run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import TYPE_CHECKING, final

from scaleml.telemetry.bundle import bundle
from scaleml.telemetry.formatting import seconds, size
from scaleml.telemetry.links import Links
from scaleml.telemetry.problem import Problem
from scaleml.telemetry.tables import html, plain

if TYPE_CHECKING:
    import pandas as pd

_MATRIX = 16
"""Workers up to which the table of links is shown whole."""
_SHORT = 16
"""Characters of a name up to which it stands in that table."""
_COLORS = {"error": "#D55E00", "warning": "#B8860B", "note": "#59636e"}


@final
@dataclass(frozen=True)
class WorkerReport:
    """One worker. What it did not tell is "", 0 or NaN.

    Parameters
    ----------
    address, name : str
        As Dask knows it.
    answers : bool
        Whether it answered at all.
    status : str
        ``"running"``, or such as ``"paused"``, as Dask's scheduler says.
    threads : int
        Of Dask: as many BLAS threads has a rank there.
    memory_limit, memory_used : int
        Bytes that it may take (0: no limit), and that its process takes.
    nanny : bool
        Whether it is started again when it is lost.
    host : str
        Tells hosts apart: workers with the same one share memory, cores and ``/dev/shm``.
    cores : int
        Of its host, as far as it may use them.
    shm, shm_free : int
        Bytes of ``/dev/shm``.
    python, numpy, scaleml, build : str
        Versions, and a digest of scaleml's files.
    dask, distributed : str
        Versions.
    blas : str
        NumPy's BLAS and its version.
    blas_threads : int
        As it is set outside of runs.
    processor : str
        The kernels that the BLAS chose.
    gpus : tuple of str
        NVIDIA's, by name.
    torch, jax, keras, cupy : str
        Versions; they are looked for, not imported.
    clock : float
        Seconds that its clock is ahead of this process's, less than which it may be (half the round trip) is 0.
    round_trip : float
        Seconds of a question by Dask, there and back.
    """

    address: str
    name: str
    answers: bool = True
    status: str = "running"
    threads: int = 0
    memory_limit: int = 0
    memory_used: int = 0
    nanny: bool = False
    host: str = ""
    cores: int = 0
    shm: int = 0
    shm_free: int = 0
    python: str = ""
    numpy: str = ""
    scaleml: str = ""
    build: str = ""
    dask: str = ""
    distributed: str = ""
    blas: str = ""
    blas_threads: int = 0
    processor: str = ""
    gpus: tuple[str, ...] = ()
    torch: str = ""
    jax: str = ""
    keras: str = ""
    cupy: str = ""
    clock: float = math.nan
    round_trip: float = math.nan


@final
@dataclass(frozen=True, repr=False)
class ClusterReport:
    """What `scaleml.doctor` found.

    Parameters
    ----------
    scheduler : str
        Its address.
    versions : mapping
        Of Python, dask and distributed on the scheduler: name -> version.
    tls : bool
        Whether what goes between workers is encrypted.
    workers : tuple of WorkerReport
        In the order of their names.
    links : Links
        Who reaches whom, at what latency and bandwidth.
    problems : tuple of Problem
        What is wrong, the worst first.
    seconds : float
        How long it took to find out.
    """

    scheduler: str
    versions: Mapping[str, str] = field(default_factory=dict)
    tls: bool = False
    workers: tuple[WorkerReport, ...] = ()
    links: Links = field(default_factory=Links)
    problems: tuple[Problem, ...] = ()
    seconds: float = math.nan

    @property
    def ok(self) -> bool:
        """Whether runs can use all of its workers: no problem is an error."""
        return not any(problem.severity == "error" for problem in self.problems)

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        hosts = len({worker.host for worker in self.workers if worker.host})
        count = len(self.workers)
        what = f"{count} worker{'s' * (count != 1)}" + (f" on {hosts} host{'s' * (hosts != 1)}" if hosts else "")
        by = {kind: [p for p in self.problems if p.severity == kind] for kind in ("error", "warning")}
        said = [f"{len(found)} {kind}{'s' * (len(found) != 1)}" for kind, found in by.items() if found]
        state = "not healthy" if not self.ok else "healthy"
        return f"This cluster is {state}{': ' if said else ''}{' and '.join(said)}; {what}, examined in {seconds(self.seconds)}."

    def table(self) -> pd.DataFrame:
        """Return one row a worker, with the fields of `WorkerReport` as columns."""
        import pandas as pd

        return pd.DataFrame([asdict(worker) for worker in self.workers])

    def problems_table(self) -> pd.DataFrame:
        """Return one row a problem: severity, who, what, remedy."""
        import pandas as pd

        rows = [(p.severity, ", ".join(p.who), p.what, p.remedy) for p in self.problems]
        return pd.DataFrame(rows, columns=["severity", "who", "what", "remedy"])

    def __repr__(self) -> str:
        parts = [self.headline, *(f"{p.severity}: {p}" for p in self.problems), "", plain(*self._workers())]
        if self.links.links:
            parts += ["", self._links_title(), plain(*self._links())]
        return _printable("\n".join([*parts, "", self._foot()]))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        problems = "".join(
            f'<li><span style="color:{_COLORS[p.severity]};font-weight:600">{p.severity}</span> {escape(p.sentence)}: '
            f"<em>{escape(p.remedy)}</em></li>"
            for p in self.problems
        )
        body = f'<p style="font-size:1.1em;margin:0.3em 0"><strong>{escape(self.headline)}</strong></p>'
        body += f'<ul style="margin:0.2em 0 0.8em">{problems}</ul>' if problems else ""
        body += html(*self._workers())
        if self.links.links:
            body += f'<p style="margin:0.8em 0 0.2em">{escape(self._links_title())}</p>{html(*self._links())}'
        return bundle(repr(self), f'{body}<p style="opacity:0.7;font-size:0.9em">{escape(self._foot())}</p>', None)

    def _workers(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        head = (
            "worker",
            "name",
            "threads",
            "cores",
            "memory",
            "limit",
            "/dev/shm free",
            "Python",
            "NumPy",
            "BLAS",
            "scaleml",
        )
        last = ("nanny", "GPUs", "round trip")
        hosts = list(dict.fromkeys(worker.host for worker in self.workers if worker.host))
        return (*head, *last), [
            (
                worker.address + (f" (host {hosts.index(worker.host) + 1})" if worker.host and len(hosts) > 1 else ""),
                label,
                f"{worker.threads}",
                f"{worker.cores or '-'}",
                size(worker.memory_used),
                size(worker.memory_limit) if worker.memory_limit else "none",
                size(worker.shm_free) if worker.shm else "-",
                worker.python or ("-" if worker.answers else "no answer"),
                worker.numpy or "-",
                worker.blas or "-",
                worker.scaleml or "-",
                "yes" if worker.nanny else "no",
                f"{len(worker.gpus)}",
                seconds(worker.round_trip),
            )
            for worker, label in zip(self.workers, self._labels(), strict=True)
        ]

    def _labels(self) -> list[str]:
        """Return short names of the workers: Dask's, or their numbers where that is the address."""
        return [
            worker.name if len(worker.name) <= _SHORT and worker.name != worker.address else f"#{number}"
            for number, worker in enumerate(self.workers, 1)
        ]

    def _links_title(self) -> str:
        some = len(self.links.workers)
        among = "" if some == len(self.workers) else f" among {some} of {len(self.workers)} workers"
        typical = []
        for same, where in ((True, "within hosts"), (False, "between hosts")):
            latency, bandwidth = self.links.typical(same_host=same)
            if math.isfinite(latency):
                typical.append(f"{seconds(latency)} and {size(bandwidth)}/s {where}")
        medians = f"; median {', '.join(typical)}" if typical else ""
        how = "latency above the diagonal, bandwidth below" if some <= _MATRIX else "the slowest of each worker"
        return f"Links{among}: {how}{medians}."

    def _links(self) -> tuple[tuple[str, ...], Sequence[tuple[str, ...]]]:
        labels = dict(zip((worker.address for worker in self.workers), self._labels(), strict=True))
        shown = [labels[address] for address in self.links.workers]
        if len(shown) <= _MATRIX:
            return self.links.lines(shown)
        import numpy as np

        latency = np.nan_to_num(self.links.latency, nan=-1).max(axis=1)
        bandwidth = np.nan_to_num(self.links.bandwidth, nan=np.inf).min(axis=1)
        worst = zip(shown, latency, bandwidth, strict=True)
        cells = [(name, seconds(a), f"{size(b)}/s") if a >= 0 else (name, "none", "none") for name, a, b in worst]
        return ("worker", "latency", "bandwidth"), cells

    def _foot(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        how = "encrypted (TLS)" if self.tls else "in the clear (no TLS)"
        where = f"Scheduler {self.scheduler}{f' with {versions}' if versions else ''}"
        return f"{where}. What goes between workers is {how}.{self._frameworks()}"

    def _frameworks(self) -> str:
        """Say which frameworks workers have: of each its versions, and on how many where that is not all."""
        heard = [worker for worker in self.workers if worker.host]
        found = []
        for name, label in (("torch", "PyTorch"), ("jax", "JAX"), ("keras", "Keras"), ("cupy", "CuPy")):
            for version, count in Counter(str(getattr(worker, name)) for worker in heard).items():
                if version:
                    found.append(f"{label} {version}" + (f" on {count} of {len(heard)}" if count < len(heard) else ""))
        return f" Workers have {', '.join(found)}." if found else ""


def _printable(text: str) -> str:
    """Return text without what a terminal would obey: names and errors come from others."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
