"""Ctrl-C in a terminal: the run stops, its parameters stay, the cluster goes on; at the end, it is not heard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from runtime import harness

SCRIPT = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs deaf to it
import numpy as np
import scaleml
from scaleml.api import train as module
from scaleml.cluster import embedded
from scaleml.cluster.embedded import find_client

def announced(*arguments, **settings):
    run = start(*arguments, **settings)
    def watch():
        run._sender.wait_until(lambda: run.state != "starting", 60)
        print(run.state, flush=True)
    threading.Thread(target=watch).start()
    return run

start, module.start = module.start, announced
x = np.random.default_rng(0).normal(size=(200, 5))
y = x[:, 0] > 0
client, _ = find_client(None, 2)
print(*client.run(os.getpid).values(), flush=True)
run = scaleml.train(scaleml.LinearModel(), x, y, strategy=eval("scaleml." + sys.argv[1]), workers=2, epochs=10**9)
print(run.state, run.params is not None and bool(np.isfinite(run.params).all()), flush=True)
module.start = start
print(scaleml.train(scaleml.LinearModel(), x, y, workers=2).state, flush=True)

def interrupted_again():
    os.kill(os.getpid(), signal.SIGINT)
    close()

close, embedded.close_embedded = embedded.close_embedded, interrupted_again  # at exit
"""


def gone(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def test_an_interrupted_run_is_stopped_and_the_next_one_works(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for strategy in ("AllReduce()", "ParameterServer()"):
        process = subprocess.Popen(
            [sys.executable, script, strategy], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"},
        )  # fmt: skip
        try:
            workers = [int(word) for word in process.stdout.readline().split()]
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
        assert (out, err, process.returncode) == ("stopped True\nfinished\n", "", 0)
        assert len(workers) == 2
        assert harness.await_condition(lambda workers=workers: all(map(gone, workers)))
        left = f"-{process.pid}-"
        assert not [name for name in os.listdir("/dev/shm") if name.startswith("scaleml-data-") and left in name]
