"""Requests that wait and are handled again, with a fake /dev/fuse."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable

import pytest
from support.fake_kernel import DEADLINE_S, FakeKernel

from dfsfuse.fusekernel import parking, wire
from dfsfuse.fusekernel.dispatch import Patience
from dfsfuse.fusekernel.operations import Operations
from dfsfuse.fusekernel.parking import Parked, Parking
from dfsfuse.fusekernel.values import Context


class AwayError(Exception):
    """A failure that will pass."""


class Refusing(Operations):
    """`rmdir`, `flush` and `release` fail until `is_back` is set; `unlink` always fails, and for good."""

    def __init__(self) -> None:
        self.is_back = threading.Event()
        self.seen: list[bytes] = []
        self.changes = 0
        self.told_to_end: set[int] = set()
        self.on_rmdir: Callable[[], None] = lambda: None
        self.closing: list[str] = []
        """The calls of flush and release, and of the methods for their ends."""
        self.on_flushed: Callable[[], None] = lambda: None
        self.heard: list[bool] = []
        """For each flush that failed for good, whether its program is told."""

    def rmdir(self, context: Context, parent: int, name: bytes) -> None:
        self.seen.append(name)
        self.on_rmdir()
        if not self.is_back.is_set():
            raise AwayError

    def unlink(self, context: Context, parent: int, name: bytes) -> None:
        raise OSError(errno.EPERM, "never")

    def flush(self, context: Context, ino: int, handle: int, owner: int) -> None:
        self.closing.append("flush")
        if not self.is_back.is_set():
            raise AwayError

    def flushed(self, context: Context, ino: int, owner: int) -> None:
        self.closing.append(f"flushed {ino} {owner}")
        self.on_flushed()

    def close_failed(self, context: Context, ino: int, handle: int, *, is_reported: bool) -> None:
        self.heard.append(is_reported)

    def release(self, context: Context, ino: int, handle: int, owner: int | None) -> None:
        self.closing.append("release")
        if not self.is_back.is_set():
            raise AwayError

    def released(self, context: Context, ino: int, handle: int) -> None:
        self.closing.append(f"released {ino} {handle}")

    def come_back(self) -> None:
        self.is_back.set()
        self.changes += 1

    def patience(self, wait_s: float = DEADLINE_S) -> Patience:
        return Patience(
            lambda error, operation, thread: wait_s if isinstance(error, AwayError) else 0.0,
            lambda: self.changes,
            self.told_to_end.__contains__,
        )


class Gate:
    """Callers block here until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.opened.wait(DEADLINE_S)


def kernel_of(files: Refusing, wait_s: float = DEADLINE_S) -> FakeKernel:
    return FakeKernel(files, errno_of=_errno_of, patience=files.patience(wait_s))


def _errno_of(error: Exception, operation: str) -> int:
    return error.errno if isinstance(error, OSError) and error.errno else errno.EROFS


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_failed_is_done_again_when_something_changes_and_others_are_answered_meanwhile() -> None:
    files = Refusing()
    with kernel_of(files) as kernel:
        waiting = {kernel.send(wire.FUSE_RMDIR, 1, b"d%d\0" % number): b"d%d" % number for number in range(100)}
        until(lambda: len(files.seen) == 100)
        assert kernel.ask(wire.FUSE_UNLINK, 1, b"f\0") == (errno.EPERM, b"")
        files.come_back()
        answers = [kernel.receive() for _ in waiting]
    assert {unique for unique, _, _ in answers} == set(waiting)
    assert {(error, body) for _, error, body in answers} == {(0, b"")}
    assert sorted(files.seen[-100:]) == sorted(waiting.values()), "each request once more, with its own bytes"


def test_a_change_before_the_keeper_first_looks_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper is a thread that may start late."""
    monkeypatch.setattr(parking, "RETRY_S", 600.0)
    files = Refusing()

    def changes() -> bool:
        is_keeper = threading.current_thread().name == "fuse-parking"
        if is_keeper:
            files.is_back.set()
        return is_keeper

    patience = Patience(files.patience().may_wait_s, changes, files.told_to_end.__contains__)
    with FakeKernel(files, errno_of=_errno_of, patience=patience) as kernel:
        assert kernel.ask(wire.FUSE_RMDIR, 1, b"d\0") == (0, b"")


def test_after_its_time_it_fails_with_its_error() -> None:
    with kernel_of(Refusing(), wait_s=0.2) as kernel:
        begun = time.monotonic()
        assert kernel.ask(wire.FUSE_RMDIR, 1, b"d\0") == (errno.EROFS, b"")
        assert time.monotonic() - begun >= 0.2


def test_an_interruption_ends_it_if_its_program_is_told_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports only the first signal; the second is found by looking at the program."""
    files = Refusing()
    looks: list[int] = []

    def is_told_to_end(thread: int) -> bool:
        looks.append(thread)
        return thread in files.told_to_end

    patience = Patience(files.patience().may_wait_s, lambda: 0, is_told_to_end)
    with FakeKernel(files, errno_of=_errno_of, patience=patience) as kernel:
        waiting = kernel.send(wire.FUSE_RMDIR, 1, b"d\0")
        until(lambda: len(files.seen) == 1)
        kernel.ask(wire.FUSE_UNLINK, 1, b"f\0")
        kernel.send(wire.FUSE_INTERRUPT, 0, wire.fuse_interrupt_in.pack(waiting))
        until(lambda: len(looks) >= 2)
        files.told_to_end.add(42)
        assert kernel.receive() == (waiting, errno.EINTR, b"")
    assert set(looks) == {42}


def test_one_that_is_interrupted_while_it_is_done_again_is_answered_once() -> None:
    files = Refusing()
    with kernel_of(files) as kernel:
        waiting = kernel.send(wire.FUSE_RMDIR, 1, b"d\0")
        until(lambda: len(files.seen) == 1)
        kernel.ask(wire.FUSE_UNLINK, 1, b"f\0")
        files.told_to_end.add(42)

        def interrupted() -> None:
            files.on_rmdir = lambda: None
            kernel.send(wire.FUSE_INTERRUPT, 0, wire.fuse_interrupt_in.pack(waiting))
            time.sleep(2 * parking.POLL_S)  # the keeper looks meanwhile, and must leave the request alone

        files.on_rmdir = interrupted
        files.come_back()
        assert kernel.receive() == (waiting, 0, b"")
        assert kernel.ask(wire.FUSE_UNLINK, 1, b"f\0") == (errno.EPERM, b""), "nothing else may come"


def test_the_end_of_the_session_ends_it() -> None:
    files = Refusing()
    with kernel_of(files) as kernel:
        waiting = kernel.send(wire.FUSE_RMDIR, 1, b"d\0")
        until(lambda: len(files.seen) == 1)
        kernel.ask(wire.FUSE_UNLINK, 1, b"f\0")
        kernel.session.cut_off()
        assert kernel.receive() == (waiting, errno.ENOTCONN, b"")


# ---------------------------------------------------------------------- what happens once, at the end

FLUSH = wire.fuse_flush_in.pack(7, 0, 0, 99)


@pytest.mark.parametrize(
    ("opcode", "body", "attempt", "end"),
    [
        (wire.FUSE_FLUSH, FLUSH, "flush", "flushed 5 99"),
        (wire.FUSE_RELEASE, wire.fuse_release_in.pack(7, 0, 0, 0), "release", "released 5 7"),
    ],
)
def test_what_ends_with_a_close_ends_when_that_has_succeeded(opcode: int, body: bytes, attempt: str, end: str) -> None:
    """Not when an attempt fails and will be repeated: locks protect what is not saved yet."""
    files = Refusing()
    with kernel_of(files) as kernel:
        waiting = kernel.send(opcode, 5, body)
        until(lambda: len(files.closing) == 1)
        kernel.ask(wire.FUSE_UNLINK, 1, b"f\0")
        files.changes += 1
        until(lambda: len(files.closing) == 2)
        files.come_back()
        assert kernel.receive() == (waiting, 0, b"")
    assert files.closing[-1] == end
    assert set(files.closing[:-1]) == {attempt}


def test_what_ends_with_a_close_ends_before_it_is_told_that_it_has_failed() -> None:
    files = Refusing()
    with kernel_of(files, wait_s=0.2) as kernel:
        assert kernel.ask(wire.FUSE_FLUSH, 5, FLUSH) == (errno.EROFS, b"")
        assert files.closing[-1] == "flushed 5 99"
        assert files.closing.count("flushed 5 99") == 1
        assert files.heard == [True]


def test_what_keeps_the_end_from_being_right_is_told() -> None:
    files = Refusing()

    def fail() -> None:
        raise OSError(errno.EIO, "the locks were lost")

    files.on_flushed = fail
    with kernel_of(files, wait_s=0.2) as kernel:
        assert kernel.ask(wire.FUSE_FLUSH, 5, FLUSH) == (errno.EIO, b"")
        files.is_back.set()
        assert kernel.ask(wire.FUSE_FLUSH, 5, FLUSH) == (errno.EIO, b"")


def test_other_programs_told_to_end_do_not_wait_for_what_ends_with_a_close() -> None:
    """Releasing locks takes network requests."""
    files = Refusing()
    files.on_flushed = gate = Gate()
    files.told_to_end.add(42)
    with kernel_of(files) as kernel:
        closing = kernel.send(wire.FUSE_FLUSH, 5, FLUSH)
        until(lambda: "flush" in files.closing)
        kernel.send(wire.FUSE_INTERRUPT, 0, wire.fuse_interrupt_in.pack(closing))
        assert gate.entered.wait(DEADLINE_S)
        waiting = kernel.send(wire.FUSE_RMDIR, 1, b"d\0")
        until(lambda: len(files.seen) == 1)
        kernel.send(wire.FUSE_INTERRUPT, 0, wire.fuse_interrupt_in.pack(waiting))
        assert kernel.receive() == (waiting, errno.EINTR, b"")
        kernel.send(wire.FUSE_INTERRUPT, 0, wire.fuse_interrupt_in.pack(closing))
        assert kernel.ask(wire.FUSE_UNLINK, 1, b"f\0") == (errno.EPERM, b""), "a second interrupt must change nothing"
        gate.opened.set()
        assert kernel.receive() == (closing, errno.EINTR, b"")
    assert files.heard == [False]
    assert files.closing[-1] == "flushed 5 99"
    assert set(files.closing[:-1]) == {"flush"}


def test_the_end_of_the_session_does_not_end_what_ends_with_a_close() -> None:
    """Closing the file system saves what is left, and then ends all locks."""
    files = Refusing()
    with kernel_of(files) as kernel:
        waiting = kernel.send(wire.FUSE_FLUSH, 5, FLUSH)
        until(lambda: len(files.closing) == 1)
        kernel.ask(wire.FUSE_UNLINK, 1, b"f\0")
        kernel.session.cut_off()
        assert kernel.receive() == (waiting, errno.ENOTCONN, b"")
    assert set(files.closing) == {"flush"}


def test_an_operation_that_blocks_its_thread_is_told_of_the_unmounting() -> None:
    """The session cannot end before the operation does."""
    files = Refusing()
    files.on_rmdir = gate = Gate()
    with FakeKernel(files, errno_of=_errno_of, on_unmounted=gate.opened.set) as kernel:
        kernel.send(wire.FUSE_RMDIR, 1, b"d\0")
        assert gate.entered.wait(DEADLINE_S)
    assert files.seen == [b"d"]


def test_what_is_too_much_to_keep_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "BYTES_MAX", 10)
    with kernel_of(Refusing()) as kernel:
        assert kernel.ask(wire.FUSE_RMDIR, 1, b"d\0") == (errno.EROFS, b"")


def test_a_signal_that_comes_before_the_first_attempt_has_failed_ends_it_too() -> None:
    """The kernel does not report the signal again."""
    files = Refusing()
    files.on_rmdir = gate = Gate()
    with kernel_of(files) as kernel:
        waiting = kernel.send(wire.FUSE_RMDIR, 1, b"d\0")
        assert gate.entered.wait(DEADLINE_S)
        files.told_to_end.add(42)
        kernel.send(wire.FUSE_INTERRUPT, 0, wire.fuse_interrupt_in.pack(waiting))
        assert kernel.ask(wire.FUSE_UNLINK, 1, b"f\0") == (errno.EPERM, b"")
        gate.opened.set()
        assert kernel.receive() == (waiting, errno.EINTR, b"")


def test_those_for_whom_there_is_no_thread_yet_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "WORKERS", 1)
    gate = Gate()
    answers: list[tuple[int, int]] = []
    changes = 0

    def handle_again(parked: Parked) -> None:
        gate()
        waiting.done(parked)

    waiting = Parking(
        handle_again,
        lambda unique, error: answers.append((unique, error)),
        changes=lambda: changes,
        is_told_to_end=lambda _: True,
    )
    for unique in (1, 2, 3):
        assert waiting.park(unique, 42, memoryview(b"bytes"), errno.EROFS, DEADLINE_S)
    changes = 1
    assert gate.entered.wait(DEADLINE_S)
    assert waiting.interrupt(2)
    until(lambda: bool(answers))
    assert answers == [(2, errno.EINTR)]
    waiting.abandon()
    assert answers[1:] == [(3, errno.ENOTCONN)], "the first is answered by the worker that handles it"
    gate.opened.set()
