"""stress-ng's file stressors in a mount: two of each at once, for some seconds, checking what they do (`--verify`).

Each stressor makes thousands of calls that a test of ours would not think of, many of them wrong on purpose. What
counts is that it says nothing of a failure and was not skipped, that the file system answers afterwards, and that
nothing is left behind.

Left out of its class of file systems: bind-mount, binderfs and procfs (not about this one), fiemap and verity (the
kernel lets no FUSE file system have them), eventfd and ioprio (no file system). io-uring fails on a local disk too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from support.mounts import Mount, within
from support.programs import run

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
