"""Full disks of real servers, as root (small file systems in memory): one full disk is like a server that is down for
writing, two give ENOSPC, reading goes on, and freed room is used without a restart."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import Grid, Mount, eventually, within
from support.trees import content

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root"),
]

DISK_MIB = 80
FILE_BYTES = 600_000
SOON_S = 15.0


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    """Four servers, of which DFS1 and DFS2 have small disks."""
    folder = tmp_path / "grid"
    disks = [folder / "DFS1", folder / "DFS2"]
    try:
        for disk in disks:
            disk.mkdir(parents=True)
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "dfs-test", str(disk)], check=True, timeout=10
            )
        with Grid(folder) as grid:
            yield grid
    finally:
        for disk in disks:
            subprocess.run(["umount", str(disk)], check=False, timeout=10, capture_output=True)


def fill(grid: Grid, number: int) -> Path:
    """Fill a server's disk up to less than the reserve."""
    filler = grid.servers[number].root.parent / f"DFS{number}" / "filler"
    room = os.statvfs(filler.parent)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_bsize - (20 << 20))
    return filler


def write(mount: Mount, name: str, size: int = FILE_BYTES) -> None:
    within(SOON_S, f"writing {name}", lambda: (mount.path / name).write_bytes(content(size, name)))


def refused(mount: Mount, name: str, size: int) -> bool:
    """Return whether write() or close() reports that there is no room."""
    try:
        write(mount, name, size)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        return True
    return False


def test_one_full_disk_and_two_and_room_again(grid: Grid) -> None:
    mount = grid.mount()
    write(mount, "before")
    fillers = [fill(grid, 1)]
    write(mount, "large with one full")
    write(mount, "small with one full", 3000)
    status = grid.dfc("status")
    assert b"full" in status.stdout and status.returncode == 0, status
    fillers.append(fill(grid, 2))
    eventually(lambda: refused(mount, "large", FILE_BYTES), "two full disks are noticed")
    assert refused(mount, "small", 3000)
    assert refused(mount, "large", FILE_BYTES), "it must stay refused"
    status = grid.dfc("status")
    assert b"only two have room for data, and writing needs three" in status.stdout, status
    assert status.returncode == 9, status
    for name, size in {"before": FILE_BYTES, "large with one full": FILE_BYTES, "small with one full": 3000}.items():
        assert within(SOON_S, "reading", (mount.path / name).read_bytes) == content(size, name)
    within(SOON_S, "deleting", (mount.path / "before").unlink)
    (mount.path / "folder").mkdir()
    (mount.path / "small with one full").rename(mount.path / "folder" / "renamed")
    for filler in fillers:
        filler.unlink()
    eventually(lambda: not refused(mount, "large", FILE_BYTES), "there is room again")
    eventually(lambda: not refused(mount, "small", 3000), "there is room again")
    mount.remount()
    assert (mount.path / "large").read_bytes() == content(FILE_BYTES, "large")
    assert (mount.path / "folder" / "renamed").read_bytes() == content(3000, "small with one full")
