"""Locks of open file descriptions between two mounts: the kernel tells of their end only by that of the opening.

Programs that hold locks are processes of their own (`HOLDER`), told what to do line by line.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, Mount, eventually, within

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DEADLINE_S: Final = 20.0
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
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mount, Mount]]:
    options = ("-o", "binding=kernel")
    with Grid(tmp_path_factory.mktemp("grid")) as grid:
        yield grid.mount("a", options), grid.mount("b", options)


@pytest.fixture
def paths(mounts: tuple[Mount, Mount], request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """One file, in each mount."""
    name = request.node.name.replace("[", "-").rstrip("]")
    (mounts[0].path / name).write_bytes(b"0" * 100)
    return mounts[0].path / name, mounts[1].path / name


class Holder:
    """A program that is told what to do."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        line: str = within(DEADLINE_S, "an answer", self.process.stdout.readline)
        return line.strip()

    def ask(self, *orders: str) -> None:
        """All must succeed."""
        for order in orders:
            self.tell(order)
            assert self.answer() == "done", order

    def end(self) -> None:
        with self.process:
            self.process.kill()
            self.process.wait(DEADLINE_S)


@pytest.fixture
def holders(paths: tuple[Path, Path]) -> Iterator[tuple[Holder, Holder]]:
    with ExitStack() as running:
        found = Holder(paths[0]), Holder(paths[0])
        for holder in found:
            running.callback(holder.end)
        yield found


def is_free(path: Path) -> bool:
    """Whether the other mount gets an fcntl lock on all of it, which is given back."""
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            assert error.errno in (errno.EAGAIN, errno.EACCES)
            return False
        return True


def becomes_free(path: Path) -> None:
    """A close() does not wait for RELEASE."""
    eventually(lambda: is_free(path), "the lock is let go of")


def test_an_ofd_lock_ends_with_its_last_descriptor(paths: tuple[Path, Path], holders: tuple[Holder, Holder]) -> None:
    holder, _ = holders
    holder.ask("open f", "ofd f", "dup f", "close f", "open other", "close other")
    assert not is_free(paths[1])
    holder.ask("close f2")
    becomes_free(paths[1])


def test_an_ofd_lock_ends_with_its_process(paths: tuple[Path, Path], holders: tuple[Holder, Holder]) -> None:
    holder, again = holders
    holder.ask("open f", "ofd f 0 10", "ofd f 50 10")
    assert not is_free(paths[1])
    holder.end()
    becomes_free(paths[1])
    again.ask("open f", "ofd f")


def test_an_ofd_lock_outlives_the_process_that_took_it_in_a_child_and_over_exec(
    paths: tuple[Path, Path], holders: tuple[Holder, Holder]
) -> None:
    holder, executed = holders
    holder.ask("open f", "ofd f", "fork f", "close f")
    assert not is_free(paths[1])
    holder.ask("end-child f")
    becomes_free(paths[1])
    executed.ask("open f", "ofd f", "exec f")
    assert not is_free(paths[1])
    executed.end()
    becomes_free(paths[1])


def test_an_fcntl_lock_stays_over_exec_and_ends_with_the_process(
    paths: tuple[Path, Path], holders: tuple[Holder, Holder]
) -> None:
    holder, _ = holders
    holder.ask("open f", "posix f", "exec f")
    assert not is_free(paths[1])
    holder.end()
    becomes_free(paths[1])


def test_two_openings_have_locks_of_their_own(paths: tuple[Path, Path], holders: tuple[Holder, Holder]) -> None:
    holder, _ = holders
    holder.ask("open f", "open g", "ofd f 0 10", "ofd g 10 10")
    holder.tell("ofd g 5 10")
    assert holder.answer() == str(errno.EAGAIN)
    holder.ask("close f")
    eventually(lambda: _conflict(paths[1]) == 10, "the first one's lock is let go of")
    holder.ask("ofd-unlock g 10 5")
    assert _conflict(paths[1]) == 15
    holder.ask("close g")
    becomes_free(paths[1])


def _conflict(path: Path) -> int | None:
    """Where the first lock begins that is in the way of one on all of the file."""
    with path.open("r+b") as file:
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, start, *_ = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else start


def test_an_fcntl_lock_taken_again_through_another_descriptor_stays(
    paths: tuple[Path, Path], holders: tuple[Holder, Holder]
) -> None:
    """The first one's opening ends long after its descriptor: a child has it."""
    holder, _ = holders
    holder.ask("open f", "open g", "posix f", "fork f", "close f")
    assert is_free(paths[1])
    holder.ask("posix g", "end-child f")
    for _ in range(5):
        assert not is_free(paths[1])
    holder.ask("close g")
    becomes_free(paths[1])


def test_a_flock_and_an_ofd_lock_of_one_opening_both_end(
    paths: tuple[Path, Path], holders: tuple[Holder, Holder]
) -> None:
    holder, other = holders
    holder.ask("open f", "flock f", "ofd f", "close f")
    becomes_free(paths[1])
    other.ask("open f")
    with paths[1].open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        other.tell("flock f")
        assert other.answer() == str(errno.EAGAIN)


def test_locks_that_are_taken_and_dropped_without_pause_exclude_each_other(
    paths: tuple[Path, Path], holders: tuple[Holder, Holder]
) -> None:
    """The kernel gives a new opening the number of one that has just ended, whose end it has not told of yet."""
    holder, other = holders
    other.ask("open g")
    for _ in range(30):
        holder.ask("open f", "ofd-wait f")
        other.tell("ofd g")
        assert other.answer() == str(errno.EAGAIN)
        assert not is_free(paths[1])
        holder.ask("close f")
    becomes_free(paths[1])


def test_a_waiter_for_an_ofd_lock_that_is_killed_leaves_none(
    paths: tuple[Path, Path], holders: tuple[Holder, Holder]
) -> None:
    holder, waiter = holders
    holder.ask("open f", "ofd f")
    waiter.ask("open f")
    waiter.tell("ofd-wait f")
    wchan = Path(f"/proc/{waiter.process.pid}/wchan")
    eventually(lambda: "fuse" in wchan.read_text() or "request_wait" in wchan.read_text(), "it waits")
    waiter.end()
    holder.ask("close f")
    becomes_free(paths[1])
