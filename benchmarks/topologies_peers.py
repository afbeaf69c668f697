"""The measured side of `benchmarks.topologies`: one rank; lines of JSON in, lines of JSON out."""

import json
import statistics
import sys

from scaleml.comm import Listener, connect

from .pairs import seconds

if __name__ == "__main__":
    rank, address = int(sys.argv[1]), sys.argv[2]
    listener = Listener(address, token=bytes(32), run=1, generation=0, rank=rank)
    print(json.dumps(listener.address), flush=True)
    with connect(listener, json.loads(sys.stdin.readline()), rank=rank, timeout=120.0) as group:
        print(json.dumps("ready"), flush=True)
        buffers = {}
        for line in sys.stdin:
            message = json.loads(line)
            items = message["items"]
            if items not in buffers:
                buffers[items] = group.buffer(items)
            x = buffers[items]
            x[:] = 1
            group.allreduce(x, message["way"])
            assert (x == group.size).all()
            x[:] = 0
            group.barrier()
            times = seconds(lambda x=x, way=message["way"]: group.allreduce(x, way), message["calls"])
            print(json.dumps(statistics.median(times)), flush=True)
