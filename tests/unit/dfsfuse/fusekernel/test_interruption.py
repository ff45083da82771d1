"""Programs that are released while their request waits for servers, with a fake /dev/fuse."""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from support.fake_kernel import DEADLINE_S, FakeKernel
from support.memory_fs import Inode

from dfsfuse.fusekernel import interruption, wire
from dfsfuse.fusekernel.dispatch import Patience
from dfsfuse.fusekernel.operations import Operations
from dfsfuse.fusekernel.values import Changes, Context, DirectoryEntry, Entry, Listed, Opened, TimedAttributes

GIVEN = Entry(Inode(5, stat.S_IFREG | 0o644, 0, 0))
CREATE = wire.fuse_create_in.pack(os.O_WRONLY, 0o644, 0, 0) + b"f\0"
OPEN = wire.fuse_open_in.pack(os.O_RDONLY, 0)
TRUNCATING = wire.fuse_open_in.pack(os.O_WRONLY | os.O_TRUNC, 0)
READ = wire.fuse_read_in.pack(7, 0, 4096, 0, 0, 0, 0)
FLUSH = wire.fuse_flush_in.pack(7, 0, 0, 99)
MKDIR = wire.fuse_mkdir_in.pack(0o755, 0) + b"d\0"


class Stalled(Operations):
    """Operations block until `goes_on` is set, except `unlink`."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.goes_on = threading.Event()
        self.failure: Exception | None = None
        self.given_back: list[tuple[object, ...]] = []
        self.told_to_end: set[int] = set()
        self.ending: set[int] = set()
        self.lacks_servers = True
        self.may_be_withdrawn = True
        self.withdrawn: list[int] = []
        self.threads: list[int] = []

    def patience(self, wait_s: float = 0.0) -> Patience:
        return Patience(
            lambda error, operation, thread: wait_s,
            lambda: 0,
            self.told_to_end.__contains__,
            self.ending.__contains__,
            lambda: self.lacks_servers,
            self._withdraw,
            lambda: self.given_back.append(("forgotten", threading.get_ident() in self.withdrawn)),
        )

    def _withdraw(self, thread: int) -> bool:
        self.withdrawn.append(thread)
        return self.may_be_withdrawn

    def _wait(self) -> None:
        self.threads.append(threading.get_ident())
        self.entered.set()
        assert self.goes_on.wait(DEADLINE_S)
        if self.failure is not None:
            raise self.failure

    def unlink(self, context: Context, parent: int, name: bytes) -> None:
        pass

    def lookup(self, context: Context, parent: int, name: bytes) -> Entry:
        self._wait()
        return GIVEN

    def mkdir(self, context: Context, parent: int, name: bytes, mode: int, umask: int) -> Entry:
        self._wait()
        return GIVEN

    def create(
        self, context: Context, parent: int, name: bytes, mode: int, flags: int, umask: int
    ) -> tuple[Entry, Opened]:
        self._wait()
        return GIVEN, Opened(7)

    def open(self, context: Context, ino: int, flags: int, *, kill_privileges: bool) -> Opened:
        self._wait()
        return Opened(7)

    def setattr(self, context: Context, ino: int, changes: Changes, handle: int | None) -> TimedAttributes:
        self._wait()
        assert GIVEN.attributes is not None
        return TimedAttributes(GIVEN.attributes)

    def fallocate(self, context: Context, ino: int, handle: int, offset: int, length: int, mode: int) -> None:
        self._wait()

    def invalidate(self, ino: int) -> None:
        self.given_back.append(("changed", ino))

    def opendir(self, context: Context, ino: int, flags: int) -> Opened:
        self._wait()
        return Opened(8)

    def read(self, context: Context, ino: int, handle: int, offset: int, size: int) -> bytes:
        self._wait()
        return b"data"

    def readdir(self, context: Context, ino: int, handle: int, offset: int) -> Iterator[DirectoryEntry]:
        self._wait()
        yield DirectoryEntry(b"f", 5, 0o100000, 1)

    def lookup_listed(self, context: Context, ino: int, entries: Sequence[Listed]) -> list[Entry | None]:
        return [GIVEN] * len(entries)

    def flush(self, context: Context, ino: int, handle: int, owner: int) -> None:
        self._wait()

    def flushed(self, context: Context, ino: int, owner: int) -> None:
        self.given_back.append(("flushed", ino, owner))

    def close_failed(self, context: Context, ino: int, handle: int, *, is_reported: bool) -> None:
        self.given_back.append(("close_failed", ino, handle, is_reported))

    def forget(self, ino: int, lookups: int) -> None:
        self.given_back.append(("forget", ino, lookups))

    def release(self, context: Context, ino: int, handle: int, owner: int | None) -> None:
        self.given_back.append(("release", ino, handle))

    def released(self, context: Context, ino: int, handle: int) -> None:
        self.given_back.append(("released", ino, handle))

    def releasedir(self, context: Context, ino: int, handle: int) -> None:
        self.given_back.append(("releasedir", ino, handle))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def interrupt(kernel: FakeKernel, unique: int) -> None:
    kernel.send(wire.FUSE_INTERRUPT, 0, wire.fuse_interrupt_in.pack(unique))


def answers_on(kernel: FakeKernel) -> None:
    """Check that another request is answered, and that nothing comes before its answer."""
    assert kernel.ask(wire.FUSE_UNLINK, 1, b"f\0") == (0, b"")


def test_only_programs_told_to_end_are_released_and_only_while_servers_are_waited_for() -> None:
    files = Stalled()
    files.lacks_servers = False
    looks: list[int] = []
    files.told_to_end = _Watched(looks)
    with FakeKernel(files, patience=files.patience()) as kernel:
        reading = kernel.send(wire.FUSE_READ, 5, READ)
        assert files.entered.wait(DEADLINE_S)
        interrupt(kernel, reading)
        time.sleep(2 * interruption.POLL_S)
        assert looks == [], "servers answer, so the request will end soon"
        files.lacks_servers = True
        until(lambda: len(looks) >= 2)
        answers_on(kernel)
        files.told_to_end.add(42)
        assert kernel.receive() == (reading, errno.EINTR, b"")
        files.goes_on.set()
        answers_on(kernel)
    assert set(looks) == {42}


class _Watched(set[int]):
    """A set that records what is looked up in it."""

    def __init__(self, looks: list[int]) -> None:
        super().__init__()
        self._looks = looks

    def __contains__(self, thread: object) -> bool:
        assert isinstance(thread, int)
        self._looks.append(thread)
        return super().__contains__(thread)


@pytest.mark.parametrize(
    ("opcode", "body", "given_back"),
    [
        (wire.FUSE_LOOKUP, b"f\0", [("forget", 5, 1)]),
        (wire.FUSE_MKDIR, MKDIR, [("forget", 5, 1)]),
        (wire.FUSE_CREATE, CREATE, [("release", 5, 7), ("released", 5, 7), ("forget", 5, 1)]),
        (wire.FUSE_OPEN, OPEN, [("release", 3, 7), ("released", 3, 7)]),
        (wire.FUSE_OPENDIR, OPEN, [("releasedir", 3, 8)]),
        (wire.FUSE_READDIRPLUS, READ, [("forget", 5, 1)]),
        (wire.FUSE_READ, READ, []),
        (wire.FUSE_OPEN, TRUNCATING, [("release", 3, 7), ("released", 3, 7), ("changed", 3)]),
        (wire.FUSE_SETATTR, wire.fuse_setattr_in.pack(wire.FATTR_SIZE, *[0] * 15), [("changed", 3)]),
        (wire.FUSE_FALLOCATE, wire.fuse_fallocate_in.pack(7, 0, 100, 0, 0), [("changed", 3)]),
    ],
)
def test_what_the_kernel_did_not_get_is_taken_back(
    opcode: int, body: bytes, given_back: list[tuple[object, ...]]
) -> None:
    """Otherwise a file would stay open or an inode held forever, or pages that are gone would still be shown."""
    files = Stalled()
    files.told_to_end.add(42)
    with FakeKernel(files, patience=files.patience()) as kernel:
        waiting = kernel.send(opcode, 3, body)
        assert files.entered.wait(DEADLINE_S)
        interrupt(kernel, waiting)
        assert kernel.receive() == (waiting, errno.EINTR, b"")
        assert files.given_back == []
        files.goes_on.set()
        until(lambda: len(files.given_back) == len(given_back) + 1)
        answers_on(kernel)
    assert files.withdrawn == files.threads
    assert files.given_back == [("forgotten", True), *given_back], "the thread must be free for other work from then on"


def test_a_save_goes_on_and_locks_end_when_it_is_over() -> None:
    files = Stalled()
    files.told_to_end.add(42)
    with FakeKernel(files, patience=files.patience(wait_s=DEADLINE_S)) as kernel:
        closing = kernel.send(wire.FUSE_FLUSH, 5, FLUSH)
        assert files.entered.wait(DEADLINE_S)
        interrupt(kernel, closing)
        assert kernel.receive() == (closing, errno.EINTR, b"")
        assert (files.withdrawn, files.given_back) == ([], []), "the data must be saved all the same"
        files.goes_on.set()
        until(lambda: ("flushed", 5, 99) in files.given_back)
        answers_on(kernel)


@pytest.mark.parametrize("state", ["waits", "is ending", "is told to end"])
def test_the_file_system_learns_whether_a_program_was_told_of_a_failed_close(state: str) -> None:
    """If no program was told of the failure, nothing may be discarded."""
    files = Stalled()
    files.lacks_servers = False
    files.failure = OSError(errno.EROFS, "too few servers")
    files.goes_on.set()
    if state != "waits":
        (files.ending if state == "is ending" else files.told_to_end).add(42)
    with FakeKernel(files, patience=files.patience()) as kernel:
        assert kernel.ask(wire.FUSE_FLUSH, 5, FLUSH) == (errno.EROFS, b"")
        assert files.given_back[-1] == ("close_failed", 5, 7, state == "waits")
        files.failure = None
        assert kernel.ask(wire.FUSE_FLUSH, 5, FLUSH) == (0, b"")
    assert [name for name, *_ in files.given_back].count("close_failed") == 1


def test_a_program_that_is_ending_is_gone_before_its_file_is_saved() -> None:
    """The kernel closes its files and reports no signal."""
    files = Stalled()
    files.ending.add(42)
    with FakeKernel(files, patience=files.patience()) as kernel:
        closing = kernel.send(wire.FUSE_FLUSH, 5, FLUSH)
        assert kernel.receive() == (closing, errno.EINTR, b"")
        reading = kernel.send(wire.FUSE_READ, 5, READ)
        until(lambda: len(files.threads) == 2)
        files.goes_on.set()
        assert kernel.receive() == (reading, 0, b"data"), "only closes are checked for this"
        until(lambda: ("flushed", 5, 99) in files.given_back)
        answers_on(kernel)


def test_no_program_is_watched_for_longer_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "IDLE_POLLS", 2)
    files = Stalled()
    files.goes_on.set()
    with FakeKernel(files, patience=files.patience()) as kernel:
        for _ in range(2):
            assert kernel.ask(wire.FUSE_FLUSH, 5, FLUSH) == (0, b"")
            assert _is_watched()
            until(lambda: not _is_watched())


def _is_watched() -> bool:
    return any(thread.name == "fuse-interruption" for thread in threading.enumerate())


def test_a_failure_after_the_program_was_released_does_not_wait_for_servers() -> None:
    files = Stalled()
    files.told_to_end.add(42)
    files.failure = OSError(errno.EROFS, "too few servers")
    with FakeKernel(files, patience=files.patience(wait_s=DEADLINE_S)) as kernel:
        closing = kernel.send(wire.FUSE_FLUSH, 5, FLUSH)
        assert files.entered.wait(DEADLINE_S)
        interrupt(kernel, closing)
        assert kernel.receive() == (closing, errno.EINTR, b"")
        files.goes_on.set()
        until(lambda: ("close_failed", 5, 7, False) in files.given_back)
        assert ("flushed", 5, 99) in files.given_back
        time.sleep(2 * interruption.POLL_S)
        assert len(files.threads) == 1, "it must not be tried again"
        answers_on(kernel)


def test_what_has_changed_something_already_is_answered_as_it_ends() -> None:
    files = Stalled()
    files.told_to_end.add(42)
    files.may_be_withdrawn = False
    with FakeKernel(files, patience=files.patience()) as kernel:
        making = kernel.send(wire.FUSE_MKDIR, 1, MKDIR)
        assert files.entered.wait(DEADLINE_S)
        interrupt(kernel, making)
        until(lambda: len(files.withdrawn) >= 2)
        answers_on(kernel)
        files.goes_on.set()
        unique, number, body = kernel.receive()
        assert (unique, number, struct.unpack_from("=Q", body)) == (making, 0, (5,))
        answers_on(kernel)
    assert files.given_back == []


def test_one_that_waits_and_is_done_again_is_let_go_too() -> None:
    """Servers went away, and it waits; they return but do not answer; its program got a signal before that."""
    files = Stalled()
    files.failure = OSError(errno.EROFS, "too few servers")
    files.goes_on.set()
    with FakeKernel(files, patience=files.patience(wait_s=DEADLINE_S)) as kernel:
        making = kernel.send(wire.FUSE_MKDIR, 1, MKDIR)
        until(lambda: len(files.threads) == 1)
        answers_on(kernel)
        files.goes_on.clear()
        interrupt(kernel, making)
        until(lambda: len(files.threads) == 2)
        files.told_to_end.add(42)
        assert kernel.receive() == (making, errno.EINTR, b"")
        files.failure = None
        files.goes_on.set()
        until(lambda: ("forget", 5, 1) in files.given_back)
        answers_on(kernel)
