"""The number of heaps from which a process's threads allocate, by glibc's malloc_info(3), in a separate process."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, os, sys, threading
from dfs_server.shared import memory

for name in sys.argv[1:]:
    getattr(memory, name)()
together = threading.Barrier(4)

def allocate():
    together.wait()
    block = bytearray(100_000)  # less than what is taken from the system by itself
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
library = ctypes.CDLL(None)
library.fdopen.restype = ctypes.c_void_p
library.malloc_info(0, ctypes.c_void_p(library.fdopen(os.dup(1), b"w")))
library.fflush(None)
"""


def heaps(*settings: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *settings], capture_output=True, timeout=60, check=True)
    return done.stdout.count(b"<heap nr=")


@pytest.mark.xfail(platform.libc_ver()[0] != "glibc", reason="Another C library has other heaps.", strict=True)
def test_all_threads_share_one_heap() -> None:
    assert heaps() > 1, "without the setting there must be several heaps"
    assert heaps("share_one_heap") == 1


def test_without_glibc_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from dfs_server.shared import memory

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    memory.share_one_heap()
    memory.give_back_large_blocks()
