"""The choice of devices: which GPU each rank of a run has, or why it can have none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from scaleml.cluster.errors import StartFailed
from scaleml.cluster.host_facts import HostFacts
from scaleml.devices import Gpu, VisibleGpus
from scaleml.models.on_devices import Foreign, devices_of
from scaleml.runtime.plan import Plan
from scaleml.runtime.serialization import is_ours
from scaleml.telemetry.problem import Problem, merged


def choose_gpus(
    device: str,
    plan: Plan,
    addresses: Sequence[str],
    hosts: Mapping[str, HostFacts],
    visible: Callable[[Sequence[str]], Mapping[str, VisibleGpus]],
) -> tuple[Gpu | None, ...]:
    """Return the GPU of each rank; nothing where no rank has one.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        As for ``train``.
    plan : Plan
        The run.
    addresses : sequence of str
        Of each rank's worker.
    hosts : mapping
        Facts of the workers.
    visible : callable
        Given addresses, says which GPUs the workers there see; asked only where that matters.

    Raises
    ------
    ValueError
        For ``"cuda"`` where model, strategy or optimizer cannot have it, with the reason.
    StartFailed
        For ``"cuda"`` where a worker sees no GPU, with what it lacks, and the remedy.
    """
    if device == "cpu":
        return ()
    training = list(addresses[: plan.layout.workers])
    if device == "cuda":
        reason = _why_not(plan)
        if reason:
            raise ValueError(f"device='cuda', but {reason}")
    elif not all(map(is_ours, _parts(plan))):
        return ()  # they may call NumPy
    seen = visible(training)
    lacking = [Problem("error", (address,), *_lack(seen[address])) for address in training if not seen[address]["gpus"]]
    if lacking and device == "cuda":
        raise StartFailed(
            f"device='cuda', but {'; '.join(map(str, merged(lacking)))}. device='auto' uses GPUs where there are some, "
            "workers= takes other workers"
        )
    if len(lacking) == len(training) or (
        device == "auto" and _why_not(plan)
    ):  # asked last: a module may have to be tried
        return ()
    gpus = _assigned(training, hosts, seen)
    kinds = {None if gpu is None else gpu.name for gpu in gpus}
    if len(kinds) > 1 and (plan.stop is not None or plan.optimizer.takes_all_rows):
        # Each rank decides by its own arithmetic, whose last bits differ between kinds of processors.
        if device == "cuda":
            names = ", ".join(sorted(map(str, kinds)))
            raise ValueError(
                f"device='cuda' on {names}: ranks that decide by what they compute when to stop need GPUs of one kind; choose workers "
                "of one kind by workers=, or device='cpu'"
            )
        return ()
    return (*gpus, *[None] * plan.layout.servers)


def _why_not(plan: Plan) -> str:
    """Return what a run has against GPUs, with the remedy."""
    if "cuda" not in devices_of(plan.model):
        if isinstance(plan.model, Foreign):
            return plan.model.why_no_gpu()
        return (
            f"{type(plan.model).__name__} computes on the processor: a flat model that can use CuPy's arrays says so by "
            "devices = ('cpu', 'cuda'); use device='cpu'"
        )
    if getattr(plan.strategy, "sparse", None):
        return f"{plan.strategy!r} is of sparse gradients, which are of the processor's memory: leave sparse out, or use device='cpu'"
    return ""


def _parts(plan: Plan) -> list[object]:
    """Return what works on a rank's vectors, beside the model."""
    codec = getattr(plan.strategy, "compression", None)
    return [plan.strategy, plan.optimizer, *([] if codec is None else [codec])]


def _lack(seen: VisibleGpus) -> tuple[str, str]:
    """Return what a worker lacks, and the remedy."""
    if not seen["library"]:
        return (
            f"has no GPU for scaleml: {seen['error']}",
            "install CuPy there: pip install 'dask-scaleml[cuda12]', or [cuda13] for a driver of CUDA 13",
        )
    usual = "see nvidia-smi and CUDA_VISIBLE_DEVICES there; a worker in a container needs the GPU passed to it"
    return f"has no GPU for scaleml: {seen['error']}", seen.get("remedy", usual)


def _assigned(
    training: Sequence[str], hosts: Mapping[str, HostFacts], seen: Mapping[str, VisibleGpus]
) -> list[Gpu | None]:
    """Return each rank's GPU: the first that its worker sees, or where all of a host see the same, each the next one."""
    of_host: dict[str, list[int]] = defaultdict(list)
    for rank, address in enumerate(training):
        if seen[address]["gpus"]:
            of_host[hosts[address]["boot"]].append(rank)
    found: list[Gpu | None] = [None] * len(training)
    for ranks in of_host.values():
        firsts = {seen[training[rank]]["gpus"][0] for rank in ranks}
        for place, rank in enumerate(ranks):
            one = seen[training[rank]]
            index = place % len(one["gpus"]) if len(firsts) == 1 else 0
            identity, name = one["gpus"][index]
            found[rank] = Gpu(index, identity, name, one["nccl"])
    return found
