"""Segments: private, without a name as soon as possible, and done without where there is no room."""

import errno
import os
import stat

import numpy as np
import pytest

from scaleml import owned_files
from scaleml.comm import inprocess
from scaleml.comm.transport import segment
from scaleml.comm.transport.segment import Segment


def names(folder):
    return [path for path in os.listdir(folder) if path.startswith(owned_files.PREFIX)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(owned_files, "MEMORY", tmp_path)
    return tmp_path


def full(*arguments):
    raise OSError(errno.ENOSPC, "no space left on device")


def test_two_maps_of_one_segment(folder):
    ours = Segment.create(4096)
    assert stat.S_IMODE(os.stat(ours.path).st_mode) == 0o600
    theirs = Segment.open(ours.path)
    ours.unlink()
    ours.unlink()
    assert names(folder) == []
    ours.array("float32", 1024)[5] = 7
    assert theirs.array("float32", 3, 20)[0] == 7
    assert ours.offset(ours.array("float32", 10, 40)[2:]) == 48
    assert ours.offset(np.zeros(3)) is None
    with pytest.raises(ValueError, match="buffer"):
        ours.array("float32", 1025)


def test_only_segments_are_opened(folder):
    (folder / "other").write_bytes(b"x" * 10)
    (folder / "scaleml-public").write_bytes(b"x" * 10)
    os.chmod(folder / "scaleml-public", 0o644)
    os.symlink(folder / "other", folder / "scaleml-link")
    for name in ("other", "scaleml-public", "scaleml-link", "scaleml-none"):
        with pytest.raises(OSError, match=name):
            Segment.open(str(folder / name))


def test_where_memory_is_full_the_scratch_folder_serves(folder, monkeypatch, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(owned_files, "MEMORY", folder / "missing")
    made = Segment.create(100, str(scratch))
    assert os.path.dirname(made.path) == str(scratch)
    made.unlink()


def reduce(group):
    buffer = group.buffer(100_000)
    plain = np.empty(100_000, "float32")
    for x in (buffer, plain):
        for _ in range(2):
            x[:] = group.rank + 1
            group.allreduce(x)
            assert (x == group.size * (group.size + 1) / 2).all()
    return [shared.segment for shared in group.mesh.segments.shared]


def test_where_all_is_full_sockets_serve(folder, monkeypatch):
    monkeypatch.setattr(segment, "_allocate", full)
    assert inprocess.run(3, reduce) == [[], [], []]
    assert names(folder) == []


@pytest.mark.parametrize("size", [2, 3])
def test_room_for_some_ranks_only(folder, monkeypatch, size):
    """The probes fit, and one segment of a buffer or stage: all agree to do without."""
    true, large = segment._allocate, []

    def allocate(descriptor, nbytes):
        if nbytes > 1000:
            large.append(nbytes)
            if len(large) % size:
                full()
        true(descriptor, nbytes)

    monkeypatch.setattr(segment, "_allocate", allocate)
    assert inprocess.run(size, reduce) == [[]] * size
    assert large
    assert names(folder) == []


def test_names_are_gone_once_the_segments_are_shared(folder):
    def rank(group):
        assert set(group.hosts) == {0}
        for n in (10_000, 100_000, 1_000_000):
            group.buffer(n)
            group.allreduce(np.ones(n))
            group.barrier()
            assert names(folder) == []
            group.barrier()

    inprocess.run(2, rank)


def test_a_lost_peer_leaves_no_name(folder):
    groups = inprocess.groups(2)
    groups[1].close()
    with pytest.raises(RuntimeError):
        groups[0].allreduce(np.ones(100_000))
    groups[0].close()
    assert names(folder) == []


def test_ranks_of_other_hosts_share_nothing(monkeypatch):
    boots = iter(["one", "two", "one"])
    monkeypatch.setattr("scaleml.comm.transport.hosts.boot_id", lambda: next(boots))

    def rank(group):
        assert set(group.hosts) != {0}
        assert sorted(group.hosts) in ([0, 0, 1], [0, 1, 1])  # whoever was first to ask
        reduce(group)
        pair = group.split(0 if group.hosts.count(group.hosts[group.rank]) == 2 else 1)
        assert set(pair.hosts) == {0}
        reduce(pair)
        return group.hosts

    first, *others = inprocess.run(3, rank)
    assert all(other == first for other in others)


def test_a_segment_that_the_peer_cannot_open_is_not_shared(monkeypatch):
    def cannot(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Segment, "open", cannot)
    inprocess.run(2, lambda group: (reduce(group), (set(group.hosts) == {0})))
    assert inprocess.run(2, lambda group: set(group.hosts) == {0}) == [False, False]


def test_each_rank_has_its_own_size():
    def rank(group):
        n = [0, 70_000, 3][group.rank]
        buffer = group.buffer(n, "float64")
        assert buffer.shape == (n,)
        assert not buffer.any()
        buffer[:] = 5
        if group.rank == 1:
            group.send(buffer, 0)
            group.barrier()
        else:
            if group.rank == 0:
                assert (group.recv(1, view=True).payload == 5).all()
            group.barrier()

    inprocess.run(3, rank)
