"""flock and fcntl locks between two mounts with the kernel binding, with real servers and real kill -9.

Programs that hold or wait for locks are separate processes (`LOCKER`) that are given orders line by line.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.mounts import Grid, Mount, eventually, unmount, within
from support.told import DEADLINE_S, Told, file_of_test, run_at_once

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

LOCK_TIMEOUT_S = 3.0
OPTIONS = ("-o", f"binding=kernel,lock_timeout={LOCK_TIMEOUT_S:g}")
KINDS = ["flock", "fcntl"]

LOCKER = """
import fcntl, os, sys
kind, path = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
set_lock = fcntl.flock if kind == "flock" else fcntl.lockf
print("opened", flush=True)
for line in sys.stdin:
    word, *numbers = line.split()
    numbers = [int(number) for number in numbers]
    try:
        if word == "lock":
            set_lock(fd, fcntl.LOCK_EX, *numbers)
        elif word == "share":
            set_lock(fd, fcntl.LOCK_SH, *numbers)
        elif word == "try":
            set_lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, *numbers)
        elif word == "unlock":
            set_lock(fd, fcntl.LOCK_UN, *numbers)
        elif word == "touch-and-close":
            os.close(os.open(path, os.O_RDONLY))
        elif word == "read":
            print(os.pread(fd, 100, 0).decode(), flush=True)
            continue
        elif word == "write":
            os.pwrite(fd, b"%d" % numbers[0], 0)
        print("done", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""

COUNTER = """
import fcntl, os, sys
kind, path, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
set_lock = fcntl.flock if kind == "flock" else fcntl.lockf
fd = os.open(path, os.O_RDWR)
for _ in range(rounds):
    set_lock(fd, fcntl.LOCK_EX)
    found = int(os.pread(fd, 100, 0))
    assert os.fstat(fd).st_size == len(str(found)), (found, os.fstat(fd).st_size)
    os.pwrite(fd, b"%d" % (found + 1), 0)
    set_lock(fd, fcntl.LOCK_UN)
"""

SQLITE = """
import sqlite3, sys
path, rounds = sys.argv[1], int(sys.argv[2])
db = sqlite3.connect(path, timeout=30, isolation_level=None)
db.execute("pragma journal_mode=delete")
for _ in range(rounds):
    db.execute("begin immediate")
    (found,) = db.execute("select n from counter").fetchone()
    db.execute("update counter set n = ?", (found + 1,))
    db.execute("commit")
db.close()
"""


@pytest.fixture(scope="module")
def mounts(grid: Grid) -> tuple[Mount, Mount]:
    return grid.mount("a", OPTIONS), grid.mount("b", OPTIONS)


@pytest.fixture
def paths(mounts: tuple[Mount, Mount], request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """The paths of one file in each mount."""
    return file_of_test(request, mounts, b"0")


@contextmanager
def lockers(kind: str, *paths: Path) -> Iterator[list[Told]]:
    """Start programs that carry out orders on locks, each with one of the paths open."""
    with ExitStack() as opened:
        found = []
        for path in paths:
            found.append(Told(LOCKER, kind, path))
            opened.callback(found[-1].end)
            assert found[-1].answer() == "opened"
        yield found


@pytest.mark.parametrize("kind", KINDS)
def test_a_counter_is_incremented_from_both(paths: tuple[Path, Path], kind: str) -> None:
    """In 100 rounds on each side, an old number or an old size is never read."""
    run_at_once(*([COUNTER, kind, str(path), "100"] for path in paths))
    assert [path.read_bytes() for path in paths] == [b"200", b"200"]


def test_sqlite_counts_from_both(paths: tuple[Path, Path]) -> None:
    one, other = (path.with_suffix(".db") for path in paths)
    with sqlite3.connect(one) as db:
        db.execute("create table counter (n)")
        db.execute("insert into counter values (0)")
    db.close()
    run_at_once([SQLITE, str(one), "20"], [SQLITE, str(other), "20"])
    for path in (one, other):
        db = sqlite3.connect(path)
        assert db.execute("select n from counter").fetchone() == (40,)
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        db.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_waiter_gets_the_lock_when_it_is_free_and_sees_what_was_written(paths: tuple[Path, Path], kind: str) -> None:
    with lockers(kind, *paths) as (one, other):
        assert other.ask("read") == "0"
        assert one.ask("lock") == "done"
        assert other.ask("try") == str(errno.EAGAIN)
        other.tell("lock")
        eventually(other.waits, "it waits")
        assert one.ask("write 7777") == "done"
        assert one.ask("unlock") == "done"
        assert other.answer() == "done"
        assert other.ask("read") == "7777"
        assert one.ask("try") == str(errno.EAGAIN)


@pytest.mark.parametrize("kind", KINDS)
def test_shared_locks(paths: tuple[Path, Path], kind: str) -> None:
    with lockers(kind, *paths, paths[1]) as (one, other, third):
        assert [one.ask("share"), other.ask("share")] == ["done", "done"]
        assert third.ask("try") == str(errno.EAGAIN)
        assert one.ask("try") == str(errno.EAGAIN)
        assert other.ask("unlock") == "done"
        assert one.ask("try") == "done"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_waiter_that_ends_leaves_no_lock(paths: tuple[Path, Path], kind: str, ending: signal.Signals) -> None:
    with lockers(kind, paths[0], paths[1], paths[1]) as (holder, waiter, third):
        assert holder.ask("lock") == "done"
        waiter.tell("lock")
        eventually(waiter.waits, "it waits")
        waiter.process.send_signal(ending)
        if ending == signal.SIGINT:
            assert waiter.answer() == "interrupted"
        else:
            waiter.process.wait(DEADLINE_S)
        assert holder.ask("unlock") == "done"
        assert third.ask("lock") == "done"


@pytest.mark.parametrize("kind", KINDS)
def test_a_holder_that_is_killed(paths: tuple[Path, Path], kind: str) -> None:
    with lockers(kind, *paths) as (holder, waiter):
        assert holder.ask("lock") == "done"
        waiter.tell("lock")
        eventually(waiter.waits, "it waits")
        holder.process.kill()
        began = time.monotonic()
        assert waiter.answer() == "done"
        assert time.monotonic() - began < LOCK_TIMEOUT_S


def test_a_hundred_waiting_locks_delay_no_other_request(paths: tuple[Path, Path]) -> None:
    script = (
        "import fcntl, os, sys, threading\n"
        "def wait():\n"
        "    fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "    fcntl.flock(fd, fcntl.LOCK_SH)\n"
        "threads = [threading.Thread(target=wait) for _ in range(100)]\n"
        "[t.start() for t in threads]\n"
        "print('started', flush=True)\n"
        "[t.join() for t in threads]\n"
    )
    with lockers("flock", paths[0]) as (holder,):
        assert holder.ask("lock") == "done"
        command = [sys.executable, "-c", script, str(paths[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            try:
                assert program.stdout is not None
                assert within(DEADLINE_S, "start", program.stdout.readline) == "started\n"
                beside = paths[1].with_suffix(".beside")
                within(DEADLINE_S, "others go on", lambda: beside.write_bytes(b"x"))
                assert beside.read_bytes() == b"x"
                assert holder.ask("unlock") == "done"
                assert program.wait(DEADLINE_S) == 0
            finally:
                program.kill()


def test_ranges_of_locks_and_their_owners(paths: tuple[Path, Path]) -> None:
    """Locks are set by lockf(length, start); a conflicting lock is reported with its owner's pid."""
    with lockers("fcntl", *paths) as (one, other):
        assert one.ask("lock 100 10") == "done"
        assert other.ask("try 10 0") == "done"
        assert other.ask("try 10 110") == "done"
        assert other.ask("try 1 109") == str(errno.EAGAIN)
        assert one.ask("unlock 50 30") == "done"
        assert other.ask("try 50 30") == "done"
        assert other.ask("try 51 29") == str(errno.EAGAIN)
        with paths[1].open("r+b") as file:
            flock = struct.Struct("hhqqi4x")
            asked = flock.pack(fcntl.F_WRLCK, os.SEEK_SET, 80, 200, 0)
            kind, whence, start, length, pid = flock.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
            assert (kind, whence, start, length, pid) == (fcntl.F_WRLCK, 0, 80, 30, one.process.pid)
            asked = flock.pack(fcntl.F_WRLCK, os.SEEK_SET, 1000, 1, 0)
            assert flock.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))[0] == fcntl.F_UNLCK


def test_any_close_ends_fcntl_locks_and_no_flock(paths: tuple[Path, Path]) -> None:
    for kind, expected in [("fcntl", "done"), ("flock", str(errno.EAGAIN))]:
        with lockers(kind, *paths) as (one, other):
            assert one.ask("lock") == "done"
            assert one.ask("touch-and-close") == "done"
            assert other.ask("try") == expected


def test_flock_and_fcntl_know_nothing_of_each_other(paths: tuple[Path, Path]) -> None:
    with lockers("flock", paths[0]) as (one,), lockers("fcntl", paths[1]) as (other,):
        assert [one.ask("lock"), other.ask("try")] == ["done", "done"]


def test_an_unmount_ends_locks_at_once(grid: Grid, paths: tuple[Path, Path]) -> None:
    mount = grid.mount("ends", OPTIONS)
    with lockers("flock", mount.path / paths[0].name, paths[0]) as (holder, waiter):
        assert holder.ask("lock") == "done"
        waiter.tell("lock")
        eventually(waiter.waits, "it waits")
        holder.end()
        began = time.monotonic()
        assert mount.unmount() == 0
        assert waiter.answer() == "done"
        assert time.monotonic() - began < LOCK_TIMEOUT_S


def test_a_mount_that_is_killed_loses_its_locks_after_the_timeout(grid: Grid, paths: tuple[Path, Path]) -> None:
    mount = grid.mount("killed", OPTIONS)
    with lockers("flock", mount.path / paths[0].name, paths[0]) as (holder, waiter):
        assert holder.ask("lock") == "done"
        waiter.tell("lock")
        eventually(waiter.waits, "it waits")
        began = time.monotonic()
        mount.kill()
        assert waiter.answer() == "done"
        assert time.monotonic() - began > LOCK_TIMEOUT_S / 2
    unmount(mount.path)


def test_fsck_ends_what_a_killed_mount_has_left_and_nothing_of_a_living_one(
    grid: Grid, paths: tuple[Path, Path]
) -> None:
    mount = grid.mount("dies", ("-o", "binding=kernel,lock_timeout=1"))
    free, held = paths[0].with_name("left-behind"), paths[0]
    free.write_bytes(b"free")
    with lockers("flock", mount.path / free.name, held) as (dead, living):
        assert (dead.ask("lock"), living.ask("lock")) == ("done", "done")
        mount.kill()
        found = grid.dfc("fsck")
        assert found.returncode == 0, found.stderr
        assert b"1 session and 1 lock of mounts that died are left" in found.stdout
        ended = grid.dfc("fsck", "--repair")
        assert b"1 session and 1 lock of mounts that died were removed." in ended.stdout
        again = json.loads(grid.dfc("fsck", "--json").stdout)
        assert (again["sound"], again["dead_sessions"], again["dead_locks"]) == (True, 0, 0)
        with lockers("flock", paths[1], paths[1].with_name(free.name)) as (other, taker):
            assert taker.ask("try") == "done"
            assert other.ask("try") == str(errno.EWOULDBLOCK)
    unmount(mount.path)


def test_a_mount_that_was_stopped_knows_that_its_locks_are_lost(grid: Grid, paths: tuple[Path, Path]) -> None:
    """It cannot know while it is stopped, but writing under the lost lock afterwards is refused."""
    mount = grid.mount("stopped", OPTIONS)
    with lockers("fcntl", mount.path / paths[0].name, paths[0]) as (holder, waiter):
        assert holder.ask("lock") == "done"
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            assert waiter.ask("lock") == "done"
            assert waiter.ask("write 5") == "done"
        finally:
            os.kill(mount.pid, signal.SIGCONT)
        assert holder.ask("write 9") == str(errno.EIO)
        assert holder.ask("unlock") == str(errno.EIO)
        assert holder.ask("try") == str(errno.EAGAIN)
        assert waiter.ask("unlock") == "done"
        assert holder.ask("lock") == "done"
        assert holder.ask("read") == "5"
        assert holder.ask("write 6") == "done"
    assert mount.unmount() == 0
