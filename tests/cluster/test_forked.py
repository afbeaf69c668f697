"""Children that are forked off: they leave their parent's client, cluster, data and runs alone, and say what they cannot do."""

from __future__ import annotations

from pathlib import Path

from cluster.scripts import script

CODE = """
import multiprocessing, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of Python, of forks with threads
import numpy as np
import scaleml
from scaleml.cluster import embedded
from scaleml.cluster.embedded import _own, find_client
from scaleml.estimators import job
from scaleml.linear_model import SGDClassifier

job.HERE = 0  # multiplications for which 'auto' would not look for a cluster in any case
X = np.random.default_rng(0).standard_normal((200, 5))
y = (X[:, 0] > 0).astype(int)

def told(call):
    try:
        return str(call())
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def child(out, client, run):
    out.put(told(lambda: scaleml.train(scaleml.LinearModel(), X, y)))
    out.put(told(lambda: scaleml.train(scaleml.LinearModel(), X, y, client=client)))
    out.put(told(run.wait))
    out.put(told(lambda: SGDClassifier(random_state=0).fit(X, y).score(X, y) > 0.9))

if __name__ == "__main__":
    embedded.CPU_COUNT = 1  # one worker is enough
    own, _ = find_client(None, 1)
    folder = _own.cluster.folder.path
    run = scaleml.start(scaleml.LinearModel(), X, y, epochs=10**9, workers=1)
    with own.as_current():
        context = multiprocessing.get_context("fork")
        out = context.Queue()
        process = context.Process(target=child, args=(out, own, run))
        process.start()
        for _ in range(4):
            print(out.get(timeout=60).partition(":")[::2], flush=True)
        process.join()
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    print(os.waitpid(pid, 0)[1], os.path.isdir(folder), own.status, run.state in ("starting", "running"), flush=True)
    run.stop()
    print(run.state, scaleml.train(scaleml.LinearModel(), X, y, epochs=1, workers=1).state)
"""


def test_a_forked_child_leaves_its_parent_alone(tmp_path: Path) -> None:
    with script(CODE, tmp_path) as process:
        out, err = process.communicate(timeout=110)
    assert err == ""
    trained, passed, waited, fitted, parent, after = out.splitlines()
    assert trained.startswith("('StartFailed'")
    assert "no Dask cluster is started inside a child process" in trained
    assert passed.startswith("('ValueError'")
    assert "was made by the process that this one was forked from" in passed
    assert waited.startswith("('RuntimeError', ' the run belongs to the process that this one was forked from")
    assert fitted == "('True', '')"
    assert parent == "0 True running True"
    assert after == "stopped finished"
