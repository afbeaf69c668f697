"""Ranks that meet on threads: their listeners, and what each does once all are linked."""

import threading

import numpy as np

from scaleml.comm import CommError, Listener, connect

TOKEN = b"t" * 32


def listen(rank, host="127.0.0.1", token=TOKEN, generation=0, **options):
    return Listener(host, token=token, run=1, generation=generation, rank=rank, **options)


def meet(listeners, work, deadline_s=10.0, **options):
    """Connect all listeners, each on a thread; return what `work` returns, or the errors."""
    book = [one.address for one in listeners]
    results = [None] * len(listeners)

    def target(rank):
        try:
            with connect(listeners[rank], book, rank=rank, deadline_s=deadline_s, timeout=10.0, **options) as group:
                results[rank] = work(group)
        except CommError as error:
            results[rank] = error

    threads = [threading.Thread(target=target, args=(rank,)) for rank in range(len(listeners))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def total(group):
    small, large = np.ones(10), np.ones(100_000)
    group.allreduce(small)
    group.allreduce_start(large).wait()
    return small[0], large[-1], (set(group.hosts) == {0})


def families(group):
    return {link.sock.family for link in group.mesh.links()}
