"""Lost peers, altered frames, aborts and timeouts: an error that says who, when and what for, and never a hang."""

import pickle
import threading

import numpy as np
import pytest

from scaleml.comm import Aborted, CommError, CorruptFrame, HandshakeError, PeerLost, PeerTimeout, inprocess
from scaleml.comm.collectives.sparse import sparse_allreduce
from scaleml.comm.transport import frame, payload_sum


def close(groups):
    for group in groups:
        group.close()


def on_threads(*calls):
    """Call all at once; return their errors (None: none)."""
    errors = [None] * len(calls)

    def target(position, call):
        try:
            call()
        except CommError as error:
            errors[position] = error

    threads = [threading.Thread(target=target, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


CALLS = {
    "allreduce": lambda g: g.allreduce(np.zeros(10)),
    "large allreduce": lambda g: g.allreduce(np.zeros(1_000_000)),
    "allreduce_start": lambda g: g.allreduce_start(np.zeros(10)).wait(),
    "allgather": lambda g: g.allgather(np.zeros(10)),
    "allgather_bytes": lambda g: g.allgather_bytes(b"x"),
    "sparse allreduce": lambda g: sparse_allreduce(g, np.arange(9, dtype=np.int32), np.zeros(9)),
    "barrier": lambda g: g.barrier(),
    "broadcast": lambda g: g.broadcast(np.zeros(10), 2),
    "recv": lambda g: g.recv(2),
    "recv any": lambda g: g.recv(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_dead_peer_shows_on_all_others(call, way):
    groups = inprocess.groups(3, **way)
    for group in groups[:2]:
        group.step = 17

    def work(group):
        call(group)

    dying = threading.Timer(0.02, groups[2].close)
    dying.start()
    errors = on_threads(lambda: work(groups[0]), lambda: work(groups[1]))
    for rank, error in enumerate(errors):
        assert isinstance(error, PeerLost)
        assert (error.rank, error.peer, error.step) == (rank, 2, 17)
        assert f"rank {rank} lost rank 2 at step 17" in str(error)
    dying.join()
    close(groups)


def test_a_dead_peer_shows_while_another_is_merely_slow():
    groups = inprocess.groups(3)
    groups[2].close()
    with pytest.raises(PeerLost, match="rank 2"):
        groups[0].barrier()  # rank 1 has not called it
    close(groups)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_abort_wakes(call, way):
    groups = inprocess.groups(3, **way)
    timer = threading.Timer(0.02, groups[0].abort, args=("the user stopped it",))
    timer.start()
    with pytest.raises(Aborted, match="rank 0 was aborted at step 0: the user stopped it"):
        call(groups[0])
    timer.join()
    with pytest.raises(Aborted, match="the user stopped it"):
        call(groups[0])
    with pytest.raises(Aborted, match="the user stopped it"):
        groups[0].send(b"x", 1)
    close(groups)


def test_abort_wakes_a_sender():
    groups = inprocess.groups(2)
    timer = threading.Timer(0.02, groups[0].abort, args=("enough",))
    timer.start()
    with pytest.raises(Aborted, match="enough"):
        groups[0].send(np.zeros(10_000_000), 1)
    timer.join()
    close(groups)


def test_a_closed_group_says_so():
    groups = inprocess.groups(2)
    groups[0].close()
    with pytest.raises(CommError, match="rank 0's group is closed"):
        groups[0].barrier()
    with pytest.raises(PeerLost):
        groups[1].barrier()
    close(groups)
    close(groups)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_timeout_names_rank_step_and_operation(call, way):
    groups = inprocess.groups(3, timeout=0.1, **way)
    groups[0].step = 5
    with pytest.raises(
        PeerTimeout, match=r"rank 0 waited \d+\.\d s for .* at step 5, for .*within the timeout of 0.1 s"
    ) as caught:
        call(groups[0])
    assert (caught.value.rank, caught.value.step) == (0, 5)
    close(groups)


def test_a_timeout_says_what_was_waited_for():
    groups = inprocess.groups(2, timeout=0.05)
    with pytest.raises(PeerTimeout, match=r"rank 1 at step 0, for allreduce number 1 \(3 items"):
        groups[0].allreduce(np.zeros(3))
    close(groups)
    groups = inprocess.groups(2, timeout=0.05)
    with pytest.raises(PeerTimeout, match="rank 1 at step 0, for a message with tag 8") as caught:
        groups[0].recv(1, tag=8)
    assert caught.value.peer == 1
    with pytest.raises(PeerTimeout, match="room to send"):
        groups[0].send(np.zeros(10_000_000), 1)
    close(groups)


@pytest.mark.parametrize("call", ["allreduce", "large allreduce", "recv", "recv any", "broadcast"])
def test_on_stall_may_go_on_waiting(call, way):
    again = threading.Event()
    stalls = []

    def on_stall(peer, step, waiting_for, seconds):
        stalls.append((peer, step, waiting_for, seconds))
        if len(stalls) == 3:
            again.set()
        return True

    def rank(group):
        if group.rank == 1:
            again.wait()
        if call.startswith("recv"):
            if group.rank == 0:
                assert group.recv(1 if call == "recv" else -1).payload == b"late"
            else:
                group.send(b"late", 0)
        elif call == "broadcast":
            group.broadcast(np.zeros(10), 1)
        else:
            CALLS[call](group)

    inprocess.run(2, rank, timeout=0.05, on_stall=on_stall, **way)
    assert len(stalls) >= 3
    peer, step, waiting_for, seconds = stalls[0]
    assert (peer, step) == (1, 0)
    assert waiting_for
    assert seconds >= 0.04


def altered(groups, flip, payload=b"some payload"):
    """Rank 1 sends rank 0 a message in which one bit was flipped on the way."""
    groups[1].step = 9
    channel = groups[1].mesh.channel
    channel.summed = True
    header = channel.header(frame.Key(groups[1].members.number, 0, 0, frame.BYTES, 0), payload, kind=frame.MESSAGE)
    raw = bytearray(channel.links[0].numbered(header) + payload)
    raw[flip] ^= 4
    channel.links[0].sock.sendall(raw)


def test_an_altered_header_is_refused():
    groups = inprocess.groups(2)
    altered(groups, 20)
    with pytest.raises(
        CorruptFrame, match="rank 0 got a corrupt frame from rank 1: the header does not match its CRC-32"
    ):
        groups[0].recv(1)
    close(groups)


def test_frames_that_were_altered_at_random_are_refused():
    """Some of their bytes, then the end of the link: never a payload, never another error, never a wait."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        groups = inprocess.groups(2)
        channel = groups[1].mesh.channel
        channel.summed = True
        payload = rng.bytes(rng.integers(1, 300))
        key = frame.Key(groups[1].members.number, 0, 0, frame.BYTES, 0)
        header = channel.links[0].numbered(channel.header(key, payload, kind=frame.MESSAGE))
        raw = np.frombuffer(bytearray(header + payload), np.uint8)
        raw[rng.integers(len(raw), size=rng.integers(1, 20))] ^= rng.integers(1, 256, dtype=np.uint8)
        channel.links[0].sock.sendall(raw[: rng.integers(1, len(raw) + 1)])
        channel.links[0].wake()
        with pytest.raises((CorruptFrame, PeerLost)):
            groups[0].recv(1)
        close(groups)


@pytest.mark.parametrize("length", [1, 50, 100_000])
def test_an_altered_payload_is_refused(length):
    groups = inprocess.groups(2)
    altered(groups, -1, bytes(length))
    with pytest.raises(CorruptFrame, match="from rank 1 at its step 9: its payload does not match its sum") as caught:
        groups[0].recv(1)
    assert (caught.value.rank, caught.value.peer, caught.value.step) == (0, 1, 9)
    close(groups)


@pytest.mark.parametrize("n", [10, 100_000])
def test_an_altered_collective_is_refused(n, monkeypatch):
    groups = inprocess.groups(2, shared_memory=False)
    short, long = payload_sum.payload_sum, payload_sum.table_sum
    monkeypatch.setattr("scaleml.comm.transport.link.payload_sum", lambda payload, size: short(payload, size) ^ 1)
    monkeypatch.setattr("scaleml.comm.transport.link.table_sum", lambda part, before: long(part, before) ^ 1)
    errors = on_threads(lambda: groups[0].allreduce(np.ones(n)), lambda: groups[1].allreduce(np.ones(n)))
    assert any(isinstance(error, CorruptFrame) for error in errors)
    close(groups)


@pytest.mark.parametrize(("run", "generation"), [(5, 1), (6, 0)])
def test_a_frame_of_another_generation_is_refused(run, generation):
    groups = inprocess.groups(2, run=5, generation=0)
    groups[1].mesh.context.run, groups[1].mesh.context.generation = run, generation
    groups[1].send(b"from the past", 0)
    with pytest.raises(CorruptFrame, match=f"run {run} generation {generation}, this is run 5 generation 0"):
        groups[0].recv(1)
    close(groups)


@pytest.mark.parametrize("kind", [PeerLost, PeerTimeout, CorruptFrame, Aborted, HandshakeError])
def test_errors_survive_pickling(kind):
    error = kind("what happened", rank=1, peer=2, step=3)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (str(back), back.rank, back.peer, back.step) == ("what happened", 1, 2, 3)


def test_the_root_cause_is_raised():
    def rank(group):
        if group.rank == 1:
            raise ZeroDivisionError("the cause")
        group.barrier()

    with pytest.raises(ZeroDivisionError, match="the cause"):
        inprocess.run(3, rank)
