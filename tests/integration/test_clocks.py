"""Two mounts whose clocks are an hour apart: files have the writer's times, and nothing else depends on the clocks.

Leases, locks and deadlines are measured with clocks that run at the same speed, whatever time they show. One mount's
clock is set ahead within its process, before any of our code is imported there.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support.mounts import Grid, Mount, eventually, within

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

HOUR_NS = 3600 * 10**9
LOCK_TIMEOUT_S = 3
OPTIONS = ("-o", f"binding=kernel,lock_timeout={LOCK_TIMEOUT_S}")
AHEAD = (
    "import time; real, real_ns, tick_ns = time.time, time.time_ns, time.clock_gettime_ns; "
    f"time.time = lambda: real() + 3600; time.time_ns = lambda: real_ns() + {HOUR_NS}; "
    f"time.clock_gettime_ns = lambda clock: tick_ns(clock) + {HOUR_NS}; "
)


@pytest.fixture(scope="module")
def right(grid: Grid) -> Path:
    return grid.mount("right", OPTIONS).path


def mount_ahead(grid: Grid, name: str) -> Mount:
    """Mount with a clock that is an hour ahead."""
    mount = Mount(grid, grid.folder / name, OPTIONS)
    mount._command = [AHEAD + word if word.startswith("import sys") else word for word in mount._command]
    grid.mounts.append(mount)
    mount.mount()
    return mount


@pytest.fixture(scope="module")
def ahead(grid: Grid) -> Path:
    return mount_ahead(grid, "ahead").path


def test_files_have_the_writers_times(right: Path, ahead: Path) -> None:
    (ahead / "f").write_bytes(b"from the future")
    written = (right / "f").stat()
    assert abs(written.st_mtime_ns - time.time_ns() - HOUR_NS) < HOUR_NS / 10
    assert (right / "f").read_bytes() == b"from the future"
    read = (right / "f").stat()
    assert read.st_atime_ns > read.st_ctime_ns, "the access comes after the write, whatever the clocks say"
    assert (right / "f").read_bytes() == b"from the future"
    assert (right / "f").stat().st_atime_ns == read.st_atime_ns, "only the first read may set the access time"
    (right / "f").write_bytes(b"now")
    assert (ahead / "f").read_bytes() == b"now"
    eventually(lambda: (ahead / "f").stat().st_mtime_ns < written.st_mtime_ns, "the newest time, though it is earlier")


def test_names_and_data_of_both(right: Path, ahead: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for turn in range(20):
        first, second = (right, ahead) if turn % 2 else (ahead, right)
        os.close(os.open(first / f"n{turn}", flags))
        with pytest.raises(FileExistsError):
            os.open(second / f"n{turn}", flags)
        for mount in (first, second):
            with (mount / "log").open("ab", buffering=0) as file:
                file.write(b"%d\n" % turn)
        (second / f"n{turn}").rename(second / "last")
        with pytest.raises(FileNotFoundError):
            (first / f"n{turn}").open("rb")
    for mount in (right, ahead):
        assert (mount / "log").read_bytes() == b"".join(b"%d\n%d\n" % (turn, turn) for turn in range(20))


@pytest.mark.parametrize("holder", ["right", "ahead"])
def test_locks_exclude(right: Path, ahead: Path, holder: str) -> None:
    one, other = (right, ahead) if holder == "right" else (ahead, right)
    with (one / "lock").open("w") as mine, (other / "lock").open("r+") as theirs:
        fcntl.flock(mine, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(mine, fcntl.LOCK_UN)
        within(20, "a lock that is free", lambda: fcntl.flock(theirs, fcntl.LOCK_EX))


def test_what_is_removed_there_and_open_here_stays(right: Path, ahead: Path) -> None:
    for here, there in ((right, ahead), (ahead, right)):
        (here / "open").write_bytes(b"content")
        with (here / "open").open("rb", buffering=0) as file:
            (there / "open").unlink()
            with pytest.raises(FileNotFoundError):
                (here / "open").open("rb")
            assert file.read() == b"content"


def test_a_machine_that_dies_with_locks_and_the_lease(grid: Grid, right: Path) -> None:
    """The machine's clock is ahead. Everything that it had saved is there, and its lock is free, within a few
    seconds."""
    mount = mount_ahead(grid, "dies")
    file = os.open(mount.path / "counter", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.write(file, b"40")
        with mmap.mmap(file, 2) as view:
            view[:] = b"41"
            view.flush()  # msync() saves like fsync()
        for number in range(20):
            (mount.path / f"under-way-{number}").mkdir()
        mount.kill()
        began = time.monotonic()
        (right / "others-go-on").mkdir()
        assert time.monotonic() - began < 5, "a dead writer's lease lasts two seconds"
        with (right / "counter").open("r+b", buffering=0) as ours:
            within(20, "the lock of a dead mount", lambda: fcntl.flock(ours, fcntl.LOCK_EX))
            assert ours.read() == b"41"
    finally:
        with suppress(OSError):  # close() reports that the mount is dead, and closes
            os.close(file)
