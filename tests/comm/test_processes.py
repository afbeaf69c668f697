"""Ranks that are processes of their own."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from scaleml import owned_files

ROOT = Path(__file__).parents[2]

RANK = """
    import json, sys
    import numpy as np
    from scaleml.comm import CommError, Listener, connect

    rank = int(sys.argv[1])
    one = Listener("127.0.0.1", token=b"t" * 32, run=1, generation=0, rank=rank)
    print(json.dumps(one.address), flush=True)
    group = connect(one, json.loads(sys.stdin.readline()), rank=rank, shared_memory=sys.argv[2] == "shared")
    x = group.buffer(200_000)
    y = np.empty(200_000, "float32")
"""


def start(size, body, shared):
    script = textwrap.dedent(RANK) + textwrap.dedent(body)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), shared],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for rank in range(size)
    ]  # fmt: skip
    book = [json.loads(process.stdout.readline()) for process in processes]
    for process in processes:
        process.stdin.write(json.dumps(book) + "\n")
        process.stdin.flush()
    return processes


def finish(processes):
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    return outputs, [process.returncode for process in processes]


@pytest.mark.parametrize("shared", ["shared", "sockets"])
def test_ranks_in_processes(shared):
    body = """
        for n in (10, 1000, 200_000):
            for array in (x, y):
                array[:n] = rank + 1
                group.allreduce(array[:n])
                assert (array[:n] == 6).all(), (n, array)
        assert (set(group.hosts) == {0}) == (sys.argv[2] == "shared")
        group.barrier()
        group.close()
        print("done")
    """
    assert finish(start(3, body, shared)) == (["done\n"] * 3, [0, 0, 0])


@pytest.mark.skipif(not owned_files.MEMORY.is_dir(), reason="needs /dev/shm")
def test_a_killed_process_leaks_no_segment():
    body = """
        group.allreduce(y)
        print("ready", flush=True)
        try:
            while True:
                group.allreduce(x)
        except CommError as error:
            print(type(error).__name__, error.peer, flush=True)
        group.close()
    """
    processes = start(3, body, "shared")
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert not [name for name in os.listdir(owned_files.MEMORY) if f"-{process.pid}-" in name]
    processes[1].send_signal(signal.SIGKILL)
    outputs, codes = finish(processes)
    assert codes == [0, -signal.SIGKILL, 0]
    assert "PeerLost 1\n" in outputs
    assert all(output.startswith("PeerLost") for output in (outputs[0], outputs[2]))
