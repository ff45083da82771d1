"""Collecting pages written through mappings: for which files, on which thread, and for how long."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfsfuse.mount.mapped_pages import MappedPages, maps_of, shows

MAPS = b"""\
55d0c0a2f000-55d0c0a31000 r--p 00000000 08:02 77                         /usr/bin/cat
7f0f5c000000-7f0f5c021000 rw-s 00000000 00:3f 77                         /mnt/dfs/f
7f0f5c021000-7f0f5c022000 rw-p 00000000 00:3f 78                         /mnt/dfs/private
7f0f5c022000-7f0f5c023000 r--s 00001000 00:3f 790
7ffd5c000000-7ffd5c021000 rw-p 00000000 00:00 0                          [stack]
"""


class Kernel:
    """Records notifications, and can hold one up."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.error: OSError | None = None

    def inval_inode(self, ino: int, offset: int = 0, length: int = 0) -> bool:
        assert (offset, length) == (0, 0)
        assert self.may_go_on.wait(20)
        self.told.append((ino, threading.current_thread().name))
        if self.error is not None:
            raise self.error
        return True

    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> bool:
        raise AssertionError


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    yield (kernel := Kernel())
    kernel.may_go_on.set()


@pytest.mark.parametrize(
    ("ino", "expected"), [(77, True), (78, False), (790, True), (79, False), (0, False), (7, False)]
)
def test_what_a_process_has_mapped_is_found(ino: int, expected: bool) -> None:
    assert shows(MAPS, ino) is expected


def test_a_process_that_cannot_be_looked_at_may_have_written(kernel: Kernel) -> None:
    asked: list[int] = []
    mapped = MappedPages(kernel, lambda pid: asked.append(pid) or (MAPS if pid == 42 else None))  # type: ignore[func-returns-value]
    assert mapped.may_have(42, 77)
    assert not mapped.may_have(42, 78)
    assert mapped.may_have(43, 78)
    assert mapped.may_have(0, 78)
    assert asked == [42, 42, 43]


def test_this_process_can_be_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        maps = maps_of(os.getpid())
    assert maps is not None
    assert os.fsencode(path) in maps
    assert maps_of(2**30) is None


def test_it_is_collected_on_a_thread_of_its_own(kernel: Kernel) -> None:
    mapped = MappedPages(kernel)
    done = threading.Event()
    mapped.later(lambda: (mapped.collect(7), done.set()))  # type: ignore[func-returns-value]
    assert done.wait(20)
    mapped.collect_within(8)
    assert [ino for ino, _ in kernel.told] == [7, 8]
    assert all(name.startswith("mapped-pages") for _, name in kernel.told)
    mapped.close()


def test_nothing_waits_forever(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    mapped = MappedPages(kernel)
    kernel.may_go_on.clear()
    mapped.collect_within(8, 0.01)
    assert "inode 8" in caplog.text
    mapped.close()


def test_a_kernel_that_refuses_is_told_of(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    mapped = MappedPages(kernel)
    kernel.error = OSError(5, "I/O error")
    mapped.collect_within(8)
    assert "was not collected from the kernel" in caplog.text
    mapped.close()
