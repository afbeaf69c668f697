"""Freed memory that is kept: no page is mapped twice, also where a nanny has told the process to give all back; then it goes back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import ctypes, resource
import psutil
from scaleml.runtime.freed_memory import kept_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
SIZE = 8 << 20

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        block = libc.malloc(SIZE)
        libc.memset(block, 1, SIZE)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return psutil.Process().memory_info().rss

first, before = faults(), resident()
with kept_freed_memory():
    with kept_freed_memory():
        faults()
    kept, held = faults(), resident()
print(first > 10_000, kept < 100, held - before > SIZE // 2, resident() - before < SIZE // 2, faults() > 10_000)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or not os.confstr("CS_GNU_LIBC_VERSION"), reason="glibc's")
def test_pages_are_mapped_once_while_it_lasts():
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    said = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True"] * 5, said.stdout
