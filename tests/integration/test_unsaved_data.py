"""Unsaved data in real mounts: concurrent readers, when others see it, and what a crash costs."""

from __future__ import annotations

import mmap
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

RECORDS: Final = 80
RECORD: Final = b"a line of a log\n" * 10
DEADLINE_S: Final = 60.0
IDLE_S: Final = 1.5
"""After this time the kernel's cached attributes have expired."""


@pytest.mark.parametrize("binding", ["kernel", "fusepy"])
def test_a_reader_beside_an_appender_gets_no_error_and_nothing_twice(grid: Grid, binding: str) -> None:
    path = grid.mount(binding, ["-o", f"binding={binding}"]).path / f"log by {binding}"
    path.touch()

    def append() -> None:
        for _ in range(RECORDS):
            fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(fd, RECORD)
            os.close(fd)

    writer = threading.Thread(target=append)
    fd = os.open(path, os.O_RDONLY)
    seen = b""
    sizes = [0]
    writer.start()
    while writer.is_alive():
        seen += os.pread(fd, 1 << 16, len(seen))
        sizes += [os.fstat(fd).st_size, os.lseek(fd, 0, os.SEEK_END)]
        _read_as_a_mapping(path)
    writer.join(DEADLINE_S)
    seen += os.pread(fd, 1 << 16, len(seen))
    os.close(fd)
    assert seen == RECORD * RECORDS
    assert sizes == sorted(sizes)


def _read_as_a_mapping(path: Path) -> None:
    """Read the whole file through a mapping: exactly what was appended."""
    with path.open("rb") as file:
        if size := os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
                assert bytes(mapped) == (RECORD * RECORDS)[:size]


def test_what_stays_open_is_seen_by_another_mount_and_outlives_its_own(grid: Grid) -> None:
    """Two seconds are promised; the test allows ten, for a busy machine."""
    dies, other = grid.mount("dies", ["-o", "durability=fsync"]), grid.mount("other")
    names = [f"closed {number}" for number in range(300)]
    log = os.open(dies.path / "log", os.O_WRONLY | os.O_CREAT)
    os.write(log, b"a line\n")
    for name in names:
        (dies.path / name).write_bytes(b"x")
    eventually(lambda: (other.path / "log").stat().st_size == 7, "the line is on the servers", 10)
    eventually(lambda: all((other.path / name).stat().st_size == 1 for name in names), "all closed files", 10)
    dies.kill()
    with suppress(OSError):
        os.close(log)
    assert (other.path / "log").read_bytes() == b"a line\n"
    assert all((other.path / name).read_bytes() == b"x" for name in names)


def test_a_mapping_shows_what_only_another_mount_changes(grid: Grid) -> None:
    """The mount in which it is mapped gets no requests, however long the mapping is read."""
    options = ["-o", "binding=kernel"]
    writes, maps = grid.mount("writes", options), grid.mount("maps", options)
    (writes.path / "shared").write_bytes(b"0")
    with (
        (maps.path / "shared").open("rb") as file,
        mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ) as mapped,
        (writes.path / "shared").open("r+b", buffering=0) as written,
    ):
        assert mapped[:] == b"0"
        time.sleep(IDLE_S)
        os.pwrite(written.fileno(), b"1", 0)
        eventually(lambda: mapped[:] == b"1", "the mapping shows it", 3)
