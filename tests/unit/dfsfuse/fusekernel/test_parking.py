"""Requests that wait and are handled again, over a fake /dev/fuse."""

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
    """Will pass."""


class Refusing(Operations):
    """`rmdir` fails until `is_back`; `unlink` always does, for good."""

    def __init__(self) -> None:
        self.is_back = threading.Event()
        self.seen: list[bytes] = []
        self.changes = 0
        self.told_to_end: set[int] = set()
        self.on_rmdir: Callable[[], None] = lambda: None

    def rmdir(self, context: Context, parent: int, name: bytes) -> None:
        self.seen.append(name)
        self.on_rmdir()
        if not self.is_back.is_set():
            raise AwayError

    def unlink(self, context: Context, parent: int, name: bytes) -> None:
        raise OSError(errno.EPERM, "never")

    def release(self, context: Context, ino: int, handle: int, owner: int | None) -> None:
        raise AwayError

    def come_back(self) -> None:
        self.is_back.set()
        self.changes += 1

    def patience(self, wait_s: float = DEADLINE_S) -> Patience:
        return Patience(
            lambda error, operation, thread: wait_s if isinstance(error, AwayError) else 0.0,
            lambda: self.changes,
            self.told_to_end.__contains__,
        )


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
    assert sorted(files.seen[-100:]) == sorted(waiting.values()), "each with its own bytes, once more"


def test_after_its_time_it_fails_with_its_error() -> None:
    with kernel_of(Refusing(), wait_s=0.2) as kernel:
        begun = time.monotonic()
        assert kernel.ask(wire.FUSE_RMDIR, 1, b"d\0") == (errno.EROFS, b"")
        assert time.monotonic() - begun >= 0.2


def test_an_interruption_ends_it_if_its_program_is_told_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells of signals once; the second one is seen at the program."""
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
            time.sleep(2 * parking.GLANCE_S)  # the keeper looks up meanwhile, and must leave it alone

        files.on_rmdir = interrupted
        files.come_back()
        assert kernel.receive() == (waiting, 0, b"")
        assert kernel.ask(wire.FUSE_UNLINK, 1, b"f\0") == (errno.EPERM, b""), "and nothing else comes"


def test_the_end_of_the_session_ends_it() -> None:
    files = Refusing()
    with kernel_of(files) as kernel:
        waiting = kernel.send(wire.FUSE_RMDIR, 1, b"d\0")
        until(lambda: len(files.seen) == 1)
        kernel.ask(wire.FUSE_UNLINK, 1, b"f\0")
        kernel.session.cut_off()
        assert kernel.receive() == (waiting, errno.ENOTCONN, b"")


def test_nobody_waits_for_a_release() -> None:
    with kernel_of(Refusing()) as kernel:
        assert kernel.ask(wire.FUSE_RELEASE, 1, wire.fuse_release_in.pack(1, 0, 0, 0)) == (errno.EROFS, b"")


def test_what_is_too_much_to_keep_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "BYTES_MAX", 10)
    with kernel_of(Refusing()) as kernel:
        assert kernel.ask(wire.FUSE_RMDIR, 1, b"d\0") == (errno.EROFS, b"")


class Gate:
    """Who comes in stays until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.opened.wait(DEADLINE_S)


def test_a_signal_that_comes_before_the_first_attempt_has_failed_ends_it_too() -> None:
    """The kernel does not tell of it again."""
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
    assert answers[1:] == [(3, errno.ENOTCONN)], "the first is answered by who handles it"
    gate.opened.set()
