"""Which GPU each rank has: of what its worker sees, or an error that names who lacks what, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster

import fake_cupy
import scaleml
from devices.conftest import X, Y
from models.toy import Toy
from scaleml import RunFailed
from scaleml.api.device_choice import choose_gpus
from scaleml.cluster.errors import StartFailed
from scaleml.devices import Gpu, visible_gpus
from scaleml.models import MLP, LinearModel, Signature
from scaleml.optim import LBFGS, SGD
from scaleml.runtime.plan import Plan
from scaleml.runtime.stop_rule import StopRule
from scaleml.strategies import AllReduce, Hogwild, ParameterServer

NONE: dict[str, Any] = {"library": "", "error": "CuPy is not installed", "gpus": [], "nccl": False}
BLIND = {**NONE, "library": "13.3", "error": "CuPy 13.3 sees no GPU: cudaErrorNoDevice"}


def sees(*gpus, name="H200", nccl=True):
    return {"library": "13.3", "error": "", "gpus": [(gpu, name) for gpu in gpus], "nccl": nccl}


def chosen(device, visible, *, hosts="", **changed):
    """Choose for workers a, b, ... that see this, on hosts of these letters."""
    addresses = [chr(ord("a") + number) for number in range(len(visible))]
    strategy = changed.get("strategy", AllReduce())
    layout = strategy.layout(len(addresses))
    model = LinearModel().build(Signature(4))
    plan = Plan(model, strategy, SGD(0.1), layout, (8,) * layout.workers, 1, 8, 0, "float32", 0)
    plan = replace(plan, **changed)
    where = {address: {"boot": host} for address, host in zip(addresses, hosts or "1" * 9, strict=False)}
    found = dict(zip(addresses, visible, strict=True))
    ranks = [*addresses, *addresses][: layout.size]
    return choose_gpus(device, plan, ranks, where, lambda asked: {one: found[one] for one in asked})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("visible", "hosts", "expected"),
    [
        ([sees("x"), sees("y")], "11", [0, 0]),  # CUDA_VISIBLE_DEVICES, one each
        ([sees("x", "y"), sees("y", "x")], "11", [0, 0]),  # as LocalCUDACluster has it: its own first
        ([sees("x", "y")] * 3, "111", [0, 1, 0]),  # nobody has chosen: in turns
        ([sees("x", "y"), sees("x", "y"), sees("p", "q"), sees("p", "q")], "1122", [0, 1, 0, 1]),
        ([sees("x")] * 2, "11", [0, 0]),
        ([NONE, sees("x"), BLIND], "111", [None, 0, None]),
        ([NONE, BLIND], "11", []),
    ],
)
def test_auto(visible, hosts, expected):
    found = chosen("auto", visible, hosts=hosts)
    assert [gpu and gpu.index for gpu in found] == expected
    assert chosen("cpu", visible, hosts=hosts) == ()
    for gpu, one in zip(found, visible, strict=False):
        assert gpu is None or gpu == Gpu(gpu.index, one["gpus"][gpu.index][0], "H200", True)


def test_what_a_process_sees(cupy, monkeypatch):
    found = visible_gpus()
    assert (found["error"], found["nccl"], len(found["gpus"])) == ("", True, 4)
    assert len({identity for identity, _ in found["gpus"]}) == 4

    def refuse():
        raise cupy.cuda.runtime.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    monkeypatch.setattr(cupy.cuda.nccl, "get_version", refuse)
    assert not visible_gpus()["nccl"]
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", refuse)
    found = visible_gpus()
    assert found["gpus"] == []
    assert found["error"] == "CuPy 0 sees no GPU: cudaErrorNoDevice: no CUDA-capable device is detected"
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 0)
    assert visible_gpus()["error"] == "CuPy 0 sees no GPU"


def test_servers_have_none():
    assert chosen("cuda", [sees("x"), sees("y")], strategy=ParameterServer())[2:] == (None,)


@pytest.mark.parametrize(
    ("visible", "words"),
    [
        ([sees("x"), NONE], r"worker b has no GPU for scaleml: CuPy is not installed: install CuPy there: pip install"),
        (
            [BLIND, BLIND],
            r"workers a and b have no GPU .*: CuPy 13.3 sees no GPU: cudaErrorNoDevice: see nvidia-smi and CUDA",
        ),
    ],
)
def test_cuda_names_who_lacks_what(visible, words):
    with pytest.raises(StartFailed, match=words):
        chosen("cuda", visible)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": Toy().build(Signature(4))}, "computes on the processor: .* says so by devices = "),
        ({"strategy": Hogwild(sparse=True)}, r"Hogwild\(sparse=True\) is of sparse gradients"),
    ],
    ids=["a model of NumPy's", "sparse"],
)
def test_what_cannot_have_one(changed, words):
    both = [sees("x"), sees("y")]
    assert chosen("auto", both, **changed) == ()
    with pytest.raises(ValueError, match=f"device='cuda', but .*{words}"):
        chosen("cuda", both, **changed)


def test_a_strategy_of_ones_own_may_call_numpy():
    @dataclass(frozen=True)
    class Own(AllReduce):
        pass

    assert chosen("auto", [sees("x"), sees("y")], strategy=Own()) == ()
    assert len(chosen("cuda", [sees("x"), sees("y")], strategy=Own())) == 2


@pytest.mark.parametrize("changed", [{"stop": StopRule(tol=None)}, {"optimizer": LBFGS()}], ids=["stop rule", "LBFGS"])
def test_who_decides_by_its_own_arithmetic_has_what_others_have(changed):
    unlike = [sees("x"), sees("y", name="T4")]
    assert chosen("auto", unlike, **changed) == chosen("auto", [sees("x"), NONE], **changed) == ()
    assert len(chosen("auto", unlike)) == 2
    assert len(chosen("cuda", [sees("x"), sees("y")], **changed)) == 2
    with pytest.raises(ValueError, match=r"on H200, T4: .* GPUs of one kind"):
        chosen("cuda", unlike, **changed)


def test_nccl_where_each_has_a_gpu_of_its_own():
    def plan(*gpus):
        model = LinearModel().build(Signature(4))
        layout = AllReduce().layout(len(gpus))
        return Plan(model, AllReduce(), SGD(0.1), layout, (8,) * len(gpus), 1, 8, 0, "float32", 0, gpus=gpus)

    one, two, plain = Gpu(0, "x", "T", True), Gpu(1, "y", "T", True), Gpu(1, "y", "T", False)
    assert plan(one, two).uses_nccl
    assert not any(plan(*gpus).uses_nccl for gpus in ((one, one), (one, None), (one, plain), (one,)))
    assert plan(one, two).device == ", on 2 x T"
    assert plan(one, None).device == ", on 1 x T and 1 x the CPU"


def test_train_on_workers(monkeypatch):
    """Workers that are threads of this process: first as it is, then with CuPy stood in for."""
    if visible_gpus()["gpus"]:
        pytest.skip("there is a GPU")
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        usual = {"epochs": 3, "batch_size": 24, "validation": 0.25}
        with Client(cluster, set_as_default=False) as client:
            for function, more in ((scaleml.start, {}), (scaleml.compare, {"strategies": [AllReduce()]})):
                with pytest.raises(ValueError, match="device='gpu': must be one of"):
                    function(MLP((5,)), X, Y, client=client, device="gpu", **usual, **more)
                with pytest.raises(StartFailed, match=r"device='cuda', but workers tcp.* CuPy is not installed"):
                    function(MLP((5,)), X, Y, client=client, device="cuda", **usual, **more)
            cpu = scaleml.train(MLP((5,)), X, Y, client=client, **usual)
        assert "Stand-in" not in cpu.settings
        cupy = fake_cupy.install(monkeypatch, devices=4)
        with Client(cluster, set_as_default=False) as client:
            for device in ("auto", "cuda"):
                run = scaleml.train(MLP((5,)), X, Y, client=client, device=device, scoring="balanced_accuracy", **usual)
                assert run.settings.endswith("on 2 x Stand-in")
                np.testing.assert_allclose(run.params, cpu.params, rtol=1e-4)
            if find_spec("torch"):
                from torch import nn

                model = scaleml.TorchModel(nn.Linear(6, 3), "cross_entropy")
                with pytest.raises(StartFailed, match=r"device='cuda', but workers .*: PyTorch .*CUDA"):
                    scaleml.train(model, X, Y, client=client, device="cuda", **usual)
                assert "Stand-in" not in scaleml.train(model, X, Y, client=client, **usual).settings
            run = scaleml.start(MLP((5,)), X, Y, client=client, device="cuda", **{**usual, "epochs": 100_000})
            run.update(strategy=ParameterServer())
            run.stop()
            assert run.wait(60).state == "stopped"
            with pytest.raises(RunFailed, match=r"the loss is|is not finite"):
                scaleml.train(LinearModel("squared_error"), X * 1e9, X[:, 0], client=client, device="cuda", **usual)
    assert not cupy.cuda.pinned
