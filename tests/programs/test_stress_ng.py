"""stress-ng's file stressors in a mount: two of each at once, for a few seconds, checking their results (`--verify`).

Each stressor makes thousands of calls that our own tests would not think of, many of them wrong on purpose. It must
report no failure and must not be skipped, the file system must answer afterwards, and nothing may be left behind.

Left out of its file system class: bind-mount, binderfs and procfs (about other file systems), fiemap and verity (the
kernel does not allow them for FUSE), eventfd and ioprio (not about files). io-uring fails on a local disk too.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, Mount, eventually, within
from support.programs import run, started

pytestmark = [pytest.mark.programs, pytest.mark.timeout(240)]

SECONDS: Final = 5
INSTANCES: Final = 2
DEADLINE_S: Final = 120.0

STRESSORS: Final = (
    "access aiol chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup fallocate fanotify "
    "fault fcntl file-ioctl filename flock fpunch fsize fstat full getdent handle hdd inode-flags inotify io "
    "iomix lease link locka lockf lockofd madvise mknod mmap mmapmany msync msyncmany open readahead rename revio "
    "rmap seek sendfile splice symlink sync-file touch utime xattr"
).split()


WHILE_SERVERS_DIE: Final = "hdd copy-file dentry dir rename link mmap flock utime".split()
KILLS: Final = 12
ROUNDS: Final = 20


@pytest.mark.parametrize("stressor", STRESSORS)
def test_stressor(stressor: str, root: Path, mount: Mount) -> None:
    said = run(
        "stress-ng",
        f"--{stressor}",
        str(INSTANCES),
        "--timeout",
        f"{SECONDS}s",
        "--verify",
        "--metrics-brief",
        "--temp-path",
        root,
        deadline_s=DEADLINE_S,
        install="make conformance-programs",
    )
    assert "successful run completed" in said, said
    assert "fail:" not in said and "skipping" not in said, said
    assert within(DEADLINE_S, "the folder is listed", lambda: list(root.iterdir())) == []
    assert "Traceback" not in mount.log.read_text()


def test_many_stressors_while_one_server_after_the_other_is_killed(root: Path, mount: Mount, grid: Grid) -> None:
    """With one server missing at a time, no call may fail."""
    probe = mount.path / "on all four"
    probe.write_bytes(bytes(100_000))
    kinds = [word for stressor in WHILE_SERVERS_DIE for word in (f"--{stressor}", "1")]
    options = ("--timeout", f"{2 * DEADLINE_S:g}s", "--verify", "--temp-path", str(root))
    with started("stress-ng", *kinds, *options, install="make conformance-programs") as stress:
        for number in range(KILLS):
            server = grid.servers[1 + number % 4]
            with grid.without(1 + number % 4):
                for turn in range(ROUNDS):
                    (mount.path / f"work {turn}").write_bytes(bytes(turn))
                    (mount.path / f"work {turn}").unlink()
            name = server.name.encode()
            eventually(lambda name=name: name in os.getxattr(probe, "user.dfs.servers"), f"{server.name} is back")
            assert stress.poll() is None, stress.communicate()[0]
        stress.send_signal(signal.SIGINT)
        said = stress.communicate(timeout=DEADLINE_S)[0]
    assert "fail:" not in said and "error:" not in said, said
    assert "Traceback" not in mount.log.read_text()
