"""The guard itself: it must see what is left, and let go of what is given back in time."""

import mmap
import socket
import threading
from pathlib import Path

import pytest

import leaks


def test_a_thread_left_behind_is_seen() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="left-over")
    with pytest.raises(AssertionError, match="left-over"), leaks.guard(deadline=0.02):
        thread.start()
    done.set()
    thread.join()


def test_a_socket_left_behind_is_seen() -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("open descriptors are listed on Linux only")
    pair: list[socket.socket] = []
    with pytest.raises(AssertionError, match="socket:"), leaks.guard(deadline=0.02):
        pair.extend(socket.socketpair())
    for end in pair:
        end.close()


def test_an_open_file_left_behind_is_named(tmp_path: Path) -> None:
    if not leaks.descriptors():
        pytest.skip("open descriptors are listed on Linux only")
    before = leaks.descriptors()
    with (tmp_path / "left-open").open("w"):
        assert [name for name in leaks.opened_since(before, deadline=0.02) if name.endswith("left-open")]
    assert not leaks.opened_since(before)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm here")
def test_a_segment_left_behind_is_seen_also_when_only_mapped() -> None:
    path = Path("/dev/shm/scaleml-test-of-the-guard")
    with pytest.raises(AssertionError, match="test-of-the-guard"), leaks.guard(deadline=0.02):
        path.write_bytes(bytes(4096))
    with path.open("r+b") as file:
        mapped = _unlinked_map(path, file.fileno())
    assert [name for name in leaks.look().segments if "test-of-the-guard" in name]
    mapped.close()
    assert not [name for name in leaks.look().segments if "test-of-the-guard" in name]


def test_what_is_given_back_before_the_deadline_is_no_leak() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    timer = threading.Timer(0.05, release.set)
    with leaks.guard(deadline=10):
        thread.start()
        timer.start()
    assert not thread.is_alive()


def _unlinked_map(path: Path, descriptor: int) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, 4096)
    finally:
        path.unlink()
