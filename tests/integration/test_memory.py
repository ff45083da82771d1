"""Memory is bounded whatever a file's size: servers stay below 100 MiB, clients below 512 MiB.

The file is DFS_TEST_LARGE_MIB MiB long. With the default of 768, holding half of it in memory would be noticed; 4096 is
promised.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import Grid, Mount, environment, peak_rss_mib, program
from support.trees import content

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

MIB = 1 << 20
SIZE_MIB = int(os.environ.get("DFS_TEST_LARGE_MIB", "768"))
CLIENT_LIMIT_MIB = 512
SERVER_LIMIT_MIB = 100
_BASE = [bytearray(content(MIB, f"memory/{number}")) for number in range(7)]


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with Grid(tmp_path / "grid") as grid:
        yield grid
    shutil.rmtree(tmp_path)  # gigabytes, which must not stay in pytest's folders of the last three runs


def block(number: int) -> bytearray:
    """Return the MiB with this number; all differ. The buffer is reused."""
    found = _BASE[number % len(_BASE)]
    found[:8] = number.to_bytes(8, "big")
    return found


def write(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for number in range(SIZE_MIB):
            assert file.write(block(number)) == MIB
        os.fsync(file.fileno())


def check(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        for number in range(SIZE_MIB):
            data = file.read(MIB)
            while len(data) < MIB and (more := file.read(MIB - len(data))):
                data += more
            assert data == block(number), f"MiB {number} of {SIZE_MIB}"
        assert file.read(1) == b""


def servers_are_small(grid: Grid) -> None:
    peaks = {server.name: round(peak_rss_mib(server.pid)) for server in grid.servers}
    assert max(peaks.values()) < SERVER_LIMIT_MIB, peaks


def mount_is_small(mount: Mount) -> None:
    assert peak_rss_mib(mount.pid) < CLIENT_LIMIT_MIB


MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def dfc_peak_mib(grid: Grid, *arguments: str | Path) -> float:
    """Run dfc and return its peak memory.

    A small process starts it, because a process's peak begins at the size of the process that forked it, and the tests'
    process may be large by now.
    """
    command = [*program("dfc"), "--config", str(grid.client_config), *map(str, arguments)]
    measured = subprocess.run(
        [sys.executable, "-I", "-c", MEASURE, *command],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(measured.stdout) / 1024


def test_the_measure_is_of_dfc_alone(grid: Grid) -> None:
    ours = bytearray(os.urandom(1024)) * ((CLIENT_LIMIT_MIB + 100) * 1024)
    assert len(ours) > CLIENT_LIMIT_MIB * MIB
    assert dfc_peak_mib(grid, "mkdir", "folder") < CLIENT_LIMIT_MIB / 2


def test_a_large_file_through_dfc(grid: Grid, tmp_path: Path) -> None:
    write(tmp_path / "large")
    assert dfc_peak_mib(grid, "put", tmp_path / "large", "large") < CLIENT_LIMIT_MIB
    (tmp_path / "large").unlink()
    servers_are_small(grid)
    assert dfc_peak_mib(grid, "get", "large", tmp_path / "back") < CLIENT_LIMIT_MIB
    check(tmp_path / "back")
    servers_are_small(grid)


def test_a_large_file_through_the_mount(grid: Grid) -> None:
    mount = grid.mount()
    write(mount.path / "large")
    mount_is_small(mount)
    mount.remount()
    check(mount.path / "large")
    mount_is_small(mount)
    servers_are_small(grid)
