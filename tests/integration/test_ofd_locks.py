"""Locks of open file descriptions between two mounts: the kernel reports their end only by the end of the description.

Programs that hold locks are separate processes (`HOLDER`) that are given orders line by line.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, Mount, eventually
from support.told import Told, file_of_test

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

HOLDER: Final = """
import fcntl, os, struct, sys
F_OFD_SETLK, F_OFD_SETLKW = 37, 38
files, children = {}, []
def lock(command, fd, kind, start=0, length=0):
    fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, 0, start, length, 0))
for line in sys.stdin:
    word, name, *numbers = line.split()
    numbers = [int(number) for number in numbers]
    try:
        if word == "open":
            files[name] = os.open(sys.argv[1], os.O_RDWR)
        elif word == "close":
            os.close(files.pop(name))
        elif word == "dup":
            files[name + "2"] = os.dup(files[name])
        elif word == "ofd":
            lock(F_OFD_SETLK, files[name], fcntl.F_WRLCK, *numbers)
        elif word == "ofd-wait":
            lock(F_OFD_SETLKW, files[name], fcntl.F_WRLCK, *numbers)
        elif word == "ofd-unlock":
            lock(F_OFD_SETLK, files[name], fcntl.F_UNLCK, *numbers)
        elif word == "posix":
            lock(fcntl.F_SETLK, files[name], fcntl.F_WRLCK, *numbers)
        elif word == "flock":
            fcntl.flock(files[name], fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif word == "fork":
            ends, starts = os.pipe()
            children.append(starts)
            if os.fork() == 0:
                os.close(starts)
                os.read(ends, 1)
                os._exit(0)
            os.close(ends)
        elif word == "end-child":
            os.close(children.pop())
            os.wait()
        elif word == "exec":
            os.set_inheritable(files[name], True)
            print("done", flush=True)
            os.execvp("sleep", ["sleep", "60"])
        print("done", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


@pytest.fixture(scope="module")
def mounts(grid: Grid) -> tuple[Mount, Mount]:
    options = ("-o", "binding=kernel")
    return grid.mount("a", options), grid.mount("b", options)


@pytest.fixture
def paths(mounts: tuple[Mount, Mount], request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """The paths of one file in each mount."""
    return file_of_test(request, mounts, b"0" * 100)


@pytest.fixture
def holders(paths: tuple[Path, Path]) -> Iterator[tuple[Told, Told]]:
    with ExitStack() as running:
        found = Told(HOLDER, paths[0]), Told(HOLDER, paths[0])
        for holder in found:
            running.callback(holder.end)
        yield found


def is_free(path: Path) -> bool:
    """Return whether the other mount gets an fcntl lock on the whole file, which is released again."""
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            assert error.errno in (errno.EAGAIN, errno.EACCES)
            return False
        return True


def becomes_free(path: Path) -> None:
    """Wait until the lock is free, since a close() does not wait for RELEASE."""
    eventually(lambda: is_free(path), "the lock is let go of")


def test_an_ofd_lock_ends_with_its_last_descriptor(paths: tuple[Path, Path], holders: tuple[Told, Told]) -> None:
    holder, _ = holders
    holder.do("open f", "ofd f", "dup f", "close f", "open other", "close other")
    assert not is_free(paths[1])
    holder.do("close f2")
    becomes_free(paths[1])


def test_an_ofd_lock_ends_with_its_process(paths: tuple[Path, Path], holders: tuple[Told, Told]) -> None:
    holder, again = holders
    holder.do("open f", "ofd f 0 10", "ofd f 50 10")
    assert not is_free(paths[1])
    holder.end()
    becomes_free(paths[1])
    again.do("open f", "ofd f")


def test_an_ofd_lock_outlives_the_process_that_took_it_in_a_child_and_over_exec(
    paths: tuple[Path, Path], holders: tuple[Told, Told]
) -> None:
    holder, executed = holders
    holder.do("open f", "ofd f", "fork f", "close f")
    assert not is_free(paths[1])
    holder.do("end-child f")
    becomes_free(paths[1])
    executed.do("open f", "ofd f", "exec f")
    assert not is_free(paths[1])
    executed.end()
    becomes_free(paths[1])


def test_an_fcntl_lock_stays_over_exec_and_ends_with_the_process(
    paths: tuple[Path, Path], holders: tuple[Told, Told]
) -> None:
    holder, _ = holders
    holder.do("open f", "posix f", "exec f")
    assert not is_free(paths[1])
    holder.end()
    becomes_free(paths[1])


def test_two_openings_have_locks_of_their_own(paths: tuple[Path, Path], holders: tuple[Told, Told]) -> None:
    holder, _ = holders
    holder.do("open f", "open g", "ofd f 0 10", "ofd g 10 10")
    assert holder.ask("ofd g 5 10") == str(errno.EAGAIN)
    holder.do("close f")
    eventually(lambda: _conflict(paths[1]) == 10, "the first one's lock is let go of")
    holder.do("ofd-unlock g 10 5")
    assert _conflict(paths[1]) == 15
    holder.do("close g")
    becomes_free(paths[1])


def _conflict(path: Path) -> int | None:
    """Return where the first lock begins that conflicts with one on the whole file."""
    with path.open("r+b") as file:
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, start, *_ = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else start


def test_an_fcntl_lock_taken_again_through_another_descriptor_stays(
    paths: tuple[Path, Path], holders: tuple[Told, Told]
) -> None:
    """The first file description ends long after its descriptor is closed, since a child has it."""
    holder, _ = holders
    holder.do("open f", "open g", "posix f", "fork f", "close f")
    assert is_free(paths[1])
    holder.do("posix g", "end-child f")
    for _ in range(5):
        assert not is_free(paths[1])
    holder.do("close g")
    becomes_free(paths[1])


def test_a_flock_and_an_ofd_lock_of_one_opening_both_end(paths: tuple[Path, Path], holders: tuple[Told, Told]) -> None:
    holder, other = holders
    holder.do("open f", "flock f", "ofd f", "close f")
    becomes_free(paths[1])
    other.do("open f")
    with paths[1].open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert other.ask("flock f") == str(errno.EAGAIN)


def test_locks_that_are_taken_and_dropped_without_pause_exclude_each_other(
    paths: tuple[Path, Path], holders: tuple[Told, Told]
) -> None:
    """The kernel gives a new file description the number of one that has just ended, before it reports that end."""
    holder, other = holders
    other.do("open g")
    for _ in range(30):
        holder.do("open f", "ofd-wait f")
        assert other.ask("ofd g") == str(errno.EAGAIN)
        assert not is_free(paths[1])
        holder.do("close f")
    becomes_free(paths[1])


def test_a_waiter_for_an_ofd_lock_that_is_killed_leaves_none(
    paths: tuple[Path, Path], holders: tuple[Told, Told]
) -> None:
    holder, waiter = holders
    holder.do("open f", "ofd f")
    waiter.do("open f")
    waiter.tell("ofd-wait f")
    eventually(waiter.waits, "it waits")
    waiter.end()
    holder.do("close f")
    becomes_free(paths[1])
