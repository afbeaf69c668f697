"""A newcomer's mistakes: each is refused at once, by value and remedy, before any rank starts, and leaves nothing behind."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from dask import delayed
from distributed import Client, LocalCluster

import scaleml
from scaleml import SGD, AllReduce, LinearModel, ParameterServer, Serial, faults

RNG = np.random.default_rng(3)
ROWS = 60
X = RNG.standard_normal((ROWS, 4))
LABELS = np.array(["cat", "dog"])[(X[:, 0] > 0).astype(int)]
NUMBERS = X @ np.arange(4.0)
REGRESSION = LinearModel("squared_error")


def spoilt(values: Any, place: Any, value: Any) -> Any:
    """A copy with one value replaced."""
    copy = np.array(values)
    copy[place] = value
    return copy


def frame() -> pd.DataFrame:
    return pd.DataFrame(X, columns=list("abcd")).assign(colour="red", size=3.0)


@dataclass(frozen=True)
class Mistake:
    """Arguments that differ from a correct call, and what the error must say: its type, the value, the remedy."""

    arguments: dict[str, Any]
    kind: type[Exception]
    value: str
    remedy: str


MISTAKES = {
    # X
    "X of objects": Mistake({"X": X.astype(object)}, TypeError, "X has dtype object", "astype"),
    "X of strings": Mistake({"X": np.full((ROWS, 4), "a")}, TypeError, "X has dtype <U1", "OneHotEncoder"),
    "X complex": Mistake({"X": X * 1j}, TypeError, "X has dtype complex128", "astype"),
    "X of dates": Mistake({"X": np.zeros((ROWS, 4), "M8[D]")}, TypeError, r"X has dtype datetime64\[D\]", "astype"),
    "X is None": Mistake({"X": None}, TypeError, "X is None", "pass .*rows"),
    "X is a file's name": Mistake({"X": "train.csv"}, TypeError, "'train.csv'", "load it"),
    "X delayed": Mistake({"X": delayed(X)}, TypeError, r"X is a dask\.delayed\.Delayed", "from_delayed"),
    "X ragged": Mistake({"X": [[1.0, 2.0], [3.0]]}, ValueError, "rows of X .* different lengths", "same number"),
    "NaN in X": Mistake({"X": spoilt(X, (17, 2), np.nan)}, ValueError, "X .*row 17, column 2", "SimpleImputer"),
    "infinity in X": Mistake({"X": spoilt(X, (59, 3), np.inf)}, ValueError, "X .*row 59, column 3", "drop or impute"),
    "too large": Mistake({"X": spoilt(X, (0, 1), 1e300)}, ValueError, "row 0, column 1.*large for float32", "drop"),
    "NaN in CSR": Mistake(
        {"X": scipy.sparse.csr_matrix(spoilt(X, (17, 2), np.nan))}, ValueError, "row 17, column 2", "SimpleImputer"
    ),
    "X 1-d": Mistake({"X": X[:, 0]}, ValueError, r"X has shape \(60,\)", r"X\.reshape\(-1, 1\)"),
    "X 3-d": Mistake({"X": X.reshape(ROWS, 2, 2)}, ValueError, r"\(60, 2, 2\)", r"2-d \(rows, features\)"),
    "no rows": Mistake({"X": X[:0], "y": LABELS[:0]}, ValueError, r"\(0, 4\)", "at least one row"),
    "no columns": Mistake({"X": X[:, :0]}, ValueError, r"\(60, 0\)", "at least one row and one column"),
    "text column": Mistake({"X": frame()}, TypeError, "colour", "OneHotEncoder"),
    # y
    "y short": Mistake({"y": LABELS[:-1]}, ValueError, "X has 60 rows but y has 59", "same rows in the same order"),
    "y is None": Mistake({"y": None}, ValueError, "y is None", "pass one label"),
    "y is a number": Mistake({"y": 1}, ValueError, r"y has shape \(\)", r"shape \(60,\)"),
    "y 3-d": Mistake({"y": np.zeros((ROWS, 1, 2))}, ValueError, r"\(60, 1, 2\)", "one value a row"),
    "one class": Mistake({"y": np.ones(ROWS, int)}, ValueError, "one class only, .*1", "at least two"),
    "one-hot": Mistake({"y": np.eye(2)[np.arange(ROWS) % 2]}, ValueError, r"\(60, 2\)", r"argmax\(axis=1\)"),
    "real y for classes": Mistake({"y": NUMBERS}, ValueError, r"real number .* \(row 0\)", "loss='squared_error'"),
    "NaN label": Mistake({"y": spoilt(np.arange(60) % 2.0, 7, np.nan)}, ValueError, "missing at row 7", "drop"),
    "None label": Mistake({"y": spoilt(LABELS.astype(object), 7, None)}, ValueError, "missing at row 7", "drop"),
    "pandas' NA label": Mistake(
        {"y": pd.Series(spoilt(LABELS.astype(object), 7, pd.NA))}, ValueError, "missing at row 7", "drop"
    ),
    "labels of two types": Mistake(
        {"y": spoilt(LABELS.astype(object), 7, 3)}, TypeError, "int.*str|str.*int", r"astype\(str\)"
    ),
    "labels for a regression": Mistake({"model": REGRESSION, "y": LABELS}, TypeError, "y has dtype <U3", "log_loss"),
    "NaN target": Mistake(
        {"model": REGRESSION, "y": spoilt(NUMBERS, 9, np.nan)}, ValueError, "y is nan at row 9", "drop or impute"
    ),
    "infinite target": Mistake(
        {"model": REGRESSION, "y": spoilt(NUMBERS, 9, np.inf)}, ValueError, "y is inf at row 9", "drop or impute"
    ),
    "target too large": Mistake(
        {"model": REGRESSION, "y": spoilt(NUMBERS, 9, 1e39)}, ValueError, "y .*1e\\+39 at row 9.*float32", "float64"
    ),
    # sample_weight
    "negative weight": Mistake({"sample_weight": spoilt(np.ones(60), 5, -1)}, ValueError, "-1.0 at row 5", "negative"),
    "weights short": Mistake({"sample_weight": np.ones(5)}, ValueError, "60 rows but sample_weight has 5", "same rows"),
    "no weight at all": Mistake({"sample_weight": np.zeros(60)}, ValueError, "0 everywhere", "at least one"),
    "weights of text": Mistake({"sample_weight": LABELS}, TypeError, "sample_weight has dtype <U3", "real numbers"),
    "NaN weight": Mistake({"sample_weight": spoilt(np.ones(60), 5, np.nan)}, ValueError, "nan at row 5", "finite"),
    "weights 2-d": Mistake({"sample_weight": X}, ValueError, r"sample_weight has shape \(60, 4\)", r"\(60,\)"),
    # settings
    "model class": Mistake({"model": LinearModel}, TypeError, "LinearModel is a class", r"call it, LinearModel\(\)"),
    "model name": Mistake({"model": "linear"}, TypeError, "model='linear'", r"LinearModel\(\)"),
    "strategy name": Mistake({"strategy": "allreduce"}, TypeError, "strategy='allreduce'", r"AllReduce\(\)"),
    "strategy class": Mistake({"strategy": AllReduce}, TypeError, "AllReduce is a class", r"call it, AllReduce\(\)"),
    "optimizer name": Mistake({"optimizer": "adam"}, TypeError, "optimizer='adam'", r"Adam\(0.001\)"),
    "optimizer a number": Mistake({"optimizer": 0.1}, TypeError, "optimizer=0.1", r"SGD\(0.1\)"),
    "optimizer class": Mistake({"optimizer": SGD}, TypeError, "SGD is a class", r"call it, SGD\(\)"),
    "no epochs": Mistake({"epochs": 0}, ValueError, "epochs=0", "positive integer"),
    "half an epoch": Mistake({"epochs": 0.5}, ValueError, "epochs=0.5", "positive integer"),
    "epochs=True": Mistake({"epochs": True}, ValueError, "epochs=True", "positive integer"),
    "epochs='5'": Mistake({"epochs": "5"}, ValueError, "epochs='5'", "positive integer"),
    "empty batches": Mistake({"batch_size": 0}, ValueError, "batch_size=0", "positive integer"),
    "no shards": Mistake({"shards": 0}, ValueError, "shards=0", "positive integer"),
    "negative seed": Mistake({"seed": -1}, ValueError, "seed=-1", r"0 to 2\*\*32 - 1"),
    "half a seed": Mistake({"seed": 0.5}, ValueError, "seed=0.5", r"0 to 2\*\*32 - 1"),
    # workers
    "no workers": Mistake({"workers": 0}, ValueError, "workers=0", "at least one"),
    "negative workers": Mistake({"workers": -2}, ValueError, "workers=-2", "at least one"),
    "too many workers": Mistake({"workers": 9}, ValueError, "workers=9, .* has 2", r"cluster\.scale\(9\)"),
    "workers=True": Mistake({"workers": True}, TypeError, "workers=True", "must be a number"),
    "workers=1.5": Mistake({"workers": 1.5}, TypeError, "workers=1.5", "must be a number"),
    "an address": Mistake({"workers": "tcp://x:1"}, TypeError, "workers='tcp://x:1'", "list of worker addresses"),
    "empty list": Mistake({"workers": []}, ValueError, r"workers=\[\]", "None takes all"),
    "unknown worker": Mistake({"workers": [0, "bob"]}, ValueError, r"\['bob'\] are not", "tcp://.*, 'tcp://"),
    "one worker twice": Mistake({"workers": [1, 1]}, ValueError, r"workers=\[1, 1\]", "a worker of its own"),
    "rows < shards": Mistake({"shards": 61}, ValueError, "60 training rows for 61 shards", "use fewer shards"),
    "too many servers": Mistake(
        {"strategy": ParameterServer("async", servers=6)},
        ValueError,
        "6 servers for 5 parameters",
        "at most one server",
    ),
    "servers, adaptive": Mistake(
        {"strategy": ParameterServer("async"), "optimizer": SGD(0.1, schedule="adaptive")},
        ValueError,
        "schedule='adaptive'",
        "'constant' or 'invscaling'",
    ),
    # faults
    "fault elsewhere": Mistake({"faults": [faults.Slow(2, 4)]}, ValueError, r"Slow\(rank=2.*there are 2", "0 to 1"),
    "fault past the server": Mistake(
        {"strategy": ParameterServer("async"), "faults": [faults.Crash(3, 0)]},
        ValueError,
        "Crash.*there are 3",
        "0 to 2",
    ),
    "serial, rank 1": Mistake(
        {"strategy": Serial(), "faults": [faults.Slow(1, 2)]}, ValueError, r"Slow\(rank=1.*there are 1", "0 to 0"
    ),
    "kill a user's": Mistake({"faults": [faults.Kill(0, 0)]}, ValueError, r"Kill\(rank=0", "pass client=None"),
    "fault's name": Mistake({"faults": ["slow"]}, TypeError, "'slow' is no fault", r"scaleml\.faults"),
    "a fault, no list": Mistake({"faults": faults.Slow(0, 4)}, TypeError, r"faults=Slow\(rank=0", r"a list"),
    # client
    "client's address": Mistake({"client": "tcp://x:1"}, TypeError, "client='tcp://x:1'", r"Client\(address\)"),
    "client is a number": Mistake({"client": 3}, TypeError, "client=3", r"distributed\.Client"),
    # validation
    "hold out all": Mistake({"validation": 1.0}, ValueError, "validation=1.0", "between 0 and 1"),
    "hold out none": Mistake({"validation": 0.0}, ValueError, "validation=0.0", "between 0 and 1"),
    "hold out less than a row": Mistake({"validation": 0.001}, ValueError, "validation=0.001 of 60 rows", "pass more"),
    "hold out 5": Mistake({"validation": 5}, TypeError, "validation=5", r"\(X, y\)"),
    "validation=True": Mistake({"validation": True}, TypeError, "validation=True", "fraction of the rows"),
    "validation='auto'": Mistake({"validation": "auto"}, TypeError, "validation='auto'", "fraction of the rows"),
    "validation X alone": Mistake({"validation": X}, TypeError, "validation=.*ndarray", r"\(X, y\)"),
    "validation (X,)": Mistake({"validation": (X,)}, TypeError, "validation=.*tuple.* 1", r"\(X, y\)"),
    "other columns": Mistake(
        {"validation": (X[:, :3], LABELS)}, ValueError, "validation X has 3 columns, X has 4", "the same features"
    ),
    "unknown label": Mistake(
        {"validation": (X, spoilt(LABELS, 4, "cow"))}, ValueError, r"'cow'.* \(row 4\)", "training classes.*cat.*dog"
    ),
    "labels of another type": Mistake(
        {"validation": (X, np.arange(60) % 2)}, ValueError, r"0.* \(row 0\)", "training classes.*cat.*dog"
    ),
    "validation y short": Mistake(
        {"validation": (X, LABELS[:7])},
        ValueError,
        "the validation X has 60 rows but the validation y has 7",
        "same rows",
    ),
    "NaN in validation": Mistake(
        {"validation": (spoilt(X, (2, 0), np.nan), LABELS)}, ValueError, "the validation X .*row 2, column 0", "impute"
    ),
    "other targets": Mistake(
        {"model": REGRESSION, "y": NUMBERS, "validation": (X, X[:, :2])},
        ValueError,
        "validation y has 2 .*y has 1",
        "the same",
    ),
}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def untouched(
    client: Client, leaks: Callable[..., AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fail if the test brought the cluster a task or a word, started another one, or left anything behind."""

    def no_cluster(workers: int) -> Client:
        raise AssertionError(f"an embedded cluster of {workers} was about to be started")

    monkeypatch.setattr("scaleml.cluster.embedded._own_client", no_cluster)
    scheduler = client.cluster.scheduler
    until, pause = time.monotonic() + 10, threading.Event()
    while scheduler.tasks and time.monotonic() < until:  # an earlier run's, on their way out
        pause.wait(0.01)
    before = scheduler.transition_counter, len(scheduler.get_events("scaleml"))
    with leaks(sockets=False):
        yield
    assert (scheduler.transition_counter, len(scheduler.get_events("scaleml"))) == before
    assert not [key for key in scheduler.tasks if str(key).startswith("scaleml")]


def arguments(found: Client | None, **changed: Any) -> dict[str, Any]:
    right = {"model": LinearModel(), "X": X, "y": LABELS, "client": found, "workers": 2, "epochs": 1}
    return {**right, **changed}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.usefixtures("untouched")
def test_a_mistake_is_refused_with_value_and_remedy(client: Client, name: str) -> None:
    mistake = MISTAKES[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        scaleml.start(**arguments(client, **mistake.arguments))
    message = str(caught.value)
    assert type(caught.value) is mistake.kind, message
    assert re.search(mistake.value, message), message
    assert re.search(mistake.remedy, message), message


def test_a_misspelt_setting_is_named(client: Client) -> None:
    with pytest.raises(TypeError, match=r"^train\(\) has no setting 'epoch'. Did you mean 'epochs'\?"):
        scaleml.train(**arguments(client, epoch=3))


def test_labels_are_told_as_python_writes_them(client: Client) -> None:
    with pytest.raises(ValueError, match=r"^the validation y holds 99 \(row 0\), which is none of .* \[0, 1\]$"):
        scaleml.start(**arguments(client, y=(LABELS == "cat").astype(int), validation=(X, np.full(ROWS, 99))))


def test_the_same_call_without_a_mistake_trains(client: Client) -> None:
    run = scaleml.train(**arguments(client, validation=0.25, sample_weight=np.ones(ROWS)))
    assert run.state == "finished"


@pytest.mark.usefixtures("untouched")
def test_a_closed_client_is_refused(client: Client) -> None:
    closed = Client(client.scheduler.address, set_as_default=False)
    closed.close()
    with pytest.raises(ValueError, match=r"client=.* is closed: make a new distributed\.Client"):
        scaleml.start(**arguments(client, client=closed))


@pytest.mark.usefixtures("untouched")
def test_an_asynchronous_client_is_refused(client: Client) -> None:
    async def start() -> None:
        async with Client(client.scheduler.address, asynchronous=True, set_as_default=False) as mistaken:
            scaleml.start(**arguments(client, client=mistaken))

    with pytest.raises(ValueError, match=r"client=.* is asynchronous: pass a client made with asynchronous=False"):
        asyncio.run(start())


@pytest.mark.usefixtures("untouched")
def test_a_cluster_instead_of_its_client_is_refused(client: Client) -> None:
    with pytest.raises(TypeError, match=r"client=LocalCluster.*: must be a distributed\.Client"):
        scaleml.start(**arguments(client, client=client.cluster))


# The mistakes above need no cluster to be seen: none is started for them.

NEEDS_A_CLUSTER = {"too many workers", "unknown worker", "rows < shards", "too many servers"}
NEEDS_A_CLUSTER |= {"servers, adaptive", "one worker twice"}
NEEDS_A_CLUSTER |= {name for name, mistake in MISTAKES.items() if "faults" in mistake.arguments}


@pytest.mark.parametrize("name", [name for name in MISTAKES if name not in NEEDS_A_CLUSTER])
@pytest.mark.usefixtures("untouched")
def test_no_cluster_is_started_for_a_mistake(client: Client, name: str) -> None:
    mistake = MISTAKES[name]
    with pytest.raises(mistake.kind, match=mistake.value):
        scaleml.start(**arguments(None, **mistake.arguments))
