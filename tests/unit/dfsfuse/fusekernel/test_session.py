"""A session with a fake /dev/fuse: requests of all kinds, hostile ones, errors, interruptions, notifications."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import logging
import os
import random
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_kernel import FakeKernel, request
from support.memory_fs import FLAGS, MemoryFs

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.dispatch import HANDLERS
from dfsfuse.fusekernel.negotiation import Settings
from dfsfuse.fusekernel.operations import Operations
from dfsfuse.fusekernel.values import Attributes, Context, Data, DirectoryEntry, Entry

EVERYTHING = (1 << 63) - 1
OPCODES = {*HANDLERS, wire.FUSE_READDIRPLUS}


def attributes_of(entry_out: bytes) -> dict[str, int]:
    fields = wire.fuse_entry_out.unpack_from(entry_out)
    names = "nodeid generation entry_valid attr_valid entry_ns attr_ns ino size blocks".split()
    return dict(zip(names, fields, strict=False)) | {"mode": fields[15], "nlink": fields[16], "uid": fields[17]}


def lock_body(owner: int, kind: int, *, flags: int = 0, start: int = 0, end: int = EVERYTHING) -> bytes:
    return wire.fuse_lk_in.pack(7, owner, start, end, kind, 42, flags, 0)


def create(kernel: FakeKernel, name: bytes = b"f") -> int:
    error, answer = kernel.ask(wire.FUSE_CREATE, 1, wire.fuse_create_in.pack(2, 0o100644, 0, 0) + name + b"\0")
    assert error == 0
    return attributes_of(answer)["nodeid"]


def test_pages_of_a_mapping_are_distinguished_from_what_a_program_writes() -> None:
    """Such pages keep their offset, even if the descriptor appends by now."""
    told: list[tuple[bool, bool]] = []

    class Noting(MemoryFs):
        def write(self, *arguments: Any, append: bool = False, is_mapped: bool = False, **others: Any) -> int:
            told.append((append, is_mapped))
            return super().write(*arguments, append=append, is_mapped=is_mapped, **others)

    with FakeKernel(Noting()) as kernel:
        ino = create(kernel)
        for flags in (0, wire.FUSE_WRITE_CACHE):
            written = wire.fuse_write_in.pack(7, 0, 1, flags, 0, os.O_APPEND, 0) + b"x"
            assert kernel.ask(wire.FUSE_WRITE, ino, written)[0] == 0
    assert told == [(True, False), (False, True)]


def test_a_file_from_its_creation_to_its_end() -> None:
    files = MemoryFs()
    with FakeKernel(files) as kernel:
        error, answer = kernel.ask(wire.FUSE_CREATE, 1, wire.fuse_create_in.pack(2, 0o100640, 0, 0) + b"f\0")
        made = attributes_of(answer)
        assert (error, made["mode"], made["uid"]) == (0, stat.S_IFREG | 0o640, 10)
        assert (made["entry_valid"], made["attr_valid"]) == (1, 1)
        ino = made["nodeid"]
        handle = wire.fuse_open_out.unpack_from(answer, wire.fuse_entry_out.size)[0]

        data = random.Random(1).randbytes(1 << 20)
        written = wire.fuse_write_in.pack(handle, 5, len(data), 0, 0, 0, 0) + data
        assert kernel.ask(wire.FUSE_WRITE, ino, written) == (0, wire.fuse_write_out.pack(len(data), 0))
        asked = wire.fuse_read_in.pack(handle, 0, 1 << 20, 0, 0, 0, 0)
        assert kernel.ask(wire.FUSE_READ, ino, asked) == (0, bytes(5) + data[:-5])

        wanted = wire.fuse_setattr_in.pack(
            wire.FATTR_SIZE | wire.FATTR_MTIME | wire.FATTR_MODE, 0, 0, 9, 0, 0, -5, 0, 0, 500, 0, 0o600, 0, 0, 0, 0
        )
        error, answer = kernel.ask(wire.FUSE_SETATTR, ino, wanted)
        fields = wire.fuse_attr_out.unpack(answer)
        assert (error, fields[4], fields[7], fields[10], fields[12]) == (0, 9, -5, 500, stat.S_IFREG | 0o600)

        error, answer = kernel.ask(wire.FUSE_LINK, 1, wire.fuse_link_in.pack(ino) + b"g\0")
        assert (attributes_of(answer)["nodeid"], attributes_of(answer)["nlink"]) == (ino, 2)
        renamed = wire.fuse_rename2_in.pack(1, 1, 0) + b"f\0g\0"
        assert kernel.ask(wire.FUSE_RENAME2, 1, renamed)[0] == errno.EEXIST
        for name in (b"f\0", b"g\0"):
            assert kernel.ask(wire.FUSE_UNLINK, 1, name) == (0, b"")
        assert kernel.ask(wire.FUSE_RELEASE, ino, wire.fuse_release_in.pack(handle, 0, 0, 0)) == (0, b"")
        kernel.send(wire.FUSE_FORGET, ino, wire.fuse_forget_in.pack(1))
        kernel.send(wire.FUSE_BATCH_FORGET, 0, wire.fuse_batch_forget_in.pack(1, 0) + wire.fuse_forget_one.pack(ino, 1))
        assert kernel.ask(wire.FUSE_LOOKUP, 1, b"f\0")[0] == errno.ENOENT
    assert files.destroyed == 1
    assert list(files.inodes) == [1], "the kernel has taken back all lookups"


def test_extended_attributes_say_their_size_first() -> None:
    with FakeKernel(MemoryFs()) as kernel:
        value = wire.fuse_setxattr_in.pack(3, 0) + b"user.a\0xyz"
        assert kernel.ask(wire.FUSE_SETXATTR, 1, value) == (0, b"")
        sized = wire.fuse_getxattr_in
        assert kernel.ask(wire.FUSE_GETXATTR, 1, sized.pack(0, 0) + b"user.a\0") == (0, sized.pack(3, 0))
        assert kernel.ask(wire.FUSE_GETXATTR, 1, sized.pack(2, 0) + b"user.a\0") == (errno.ERANGE, b"")
        assert kernel.ask(wire.FUSE_GETXATTR, 1, sized.pack(3, 0) + b"user.a\0") == (0, b"xyz")
        assert kernel.ask(wire.FUSE_LISTXATTR, 1, sized.pack(100, 0)) == (0, b"user.a\0")
        assert kernel.ask(wire.FUSE_REMOVEXATTR, 1, b"user.a\0") == (0, b"")
        assert kernel.ask(wire.FUSE_GETXATTR, 1, sized.pack(3, 0) + b"user.a\0") == (errno.ENODATA, b"")


@pytest.mark.parametrize("opcode", [wire.FUSE_READDIR, wire.FUSE_READDIRPLUS])
def test_a_listing_fits_what_is_asked_for_and_goes_on_where_it_ended(opcode: int) -> None:
    files = MemoryFs()
    names = [b"%0*d" % (n % 40 + 5, n) for n in range(500)]
    with FakeKernel(files) as kernel:
        for name in names:
            create(kernel, name)
        counted = {ino: inode.lookups for ino, inode in files.inodes.items()}
        found, offset = [], 0
        while True:
            asked = wire.fuse_read_in.pack(0, offset, 4096, 0, 0, 0, 0)
            error, answer = kernel.ask(opcode, 1, asked)
            assert error == 0
            assert len(answer) <= 4096
            assert len(answer) % 8 == 0
            if not answer:
                break
            at = 0
            while at < len(answer):
                if opcode == wire.FUSE_READDIRPLUS:
                    nodeid = wire.fuse_entry_out.unpack_from(answer, at)[0]
                    counted[nodeid] = counted.get(nodeid, 0) + 1
                    at += wire.fuse_entry_out.size
                _, offset, length, kind = wire.fuse_dirent.unpack_from(answer, at)
                at += wire.fuse_dirent.size
                found.append(answer[at : at + length])
                assert kind == (4 if found[-1].startswith(b".") else 8)
                at += -(-length // 8) * 8
        assert found == [b".", b"..", *names]
        counted.pop(0, None)
        assert {ino: inode.lookups for ino, inode in files.inodes.items()} == counted


class NoServersError(Exception):
    """An error of the file system that is not an OSError."""


class Listed(MemoryFs):
    """A folder with five files; looking up the third fails, and so does the listing when its end is requested."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.names = [b"%d" % n for n in range(5)]
        for name in self.names:
            self.create(Context(10, 20, 42, 0), 1, name, stat.S_IFREG | 0o644, 0, 0)

    def lookup(self, context: Context, parent: int, name: bytes) -> Entry:
        if name == self.names[2]:
            raise self.error
        return super().lookup(context, parent, name)

    def readdir(self, context: Context, ino: int, handle: int, offset: int) -> Iterator[DirectoryEntry]:
        yield from super().readdir(context, ino, handle, offset)
        raise self.error


ERRORS = [OSError(errno.ENOENT, "gone"), NoServersError("no server answers"), ZeroDivisionError("a bug")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_entry_that_cannot_be_looked_up_is_listed_all_the_same(error: Exception) -> None:
    """The kernel counts the entries that it gets, so once an entry is looked up the answer must be sent. The error is
    logged; and if the servers do not answer, the remaining entries are not looked up."""
    files = Listed(error)
    told: list[Exception] = []

    def errno_of(error: Exception, operation: str) -> int:
        assert operation == "readdirplus of inode 1"
        told.append(error)
        return errno.EREMOTEIO

    counted = {ino: inode.lookups for ino, inode in files.inodes.items()}
    with FakeKernel(files, errno_of=errno_of) as kernel:
        number, answer = kernel.ask(wire.FUSE_READDIRPLUS, 1, wire.fuse_read_in.pack(0, 0, 4096, 0, 0, 0, 0))
        assert number == 0
        found = {}
        while answer:
            nodeid = wire.fuse_entry_out.unpack_from(answer)[0]
            answer = answer[wire.fuse_entry_out.size :]
            _, offset, length, _ = wire.fuse_dirent.unpack_from(answer)
            answer = answer[wire.fuse_dirent.size :]
            found[answer[:length]] = nodeid
            answer = answer[-(-length // 8) * 8 :]
            counted[nodeid] = counted.get(nodeid, 0) + 1
        assert list(found) == [b".", b"..", *files.names]
        without = files.names[2:3] if isinstance(error, OSError) else files.names[2:]
        assert [name for name, nodeid in found.items() if not nodeid] == [b".", b"..", *without]
        counted.pop(0)
        assert {ino: inode.lookups for ino, inode in files.inodes.items()} == counted
        assert told == [error] * (1 if isinstance(error, OSError) else 2)
        rest = wire.fuse_read_in.pack(0, offset, 4096, 0, 0, 0, 0)
        assert kernel.ask(wire.FUSE_READDIRPLUS, 1, rest) == (errno.EREMOTEIO, b"")


# ---------------------------------------------------------------------- untrusted input


NAMES = [wire.FUSE_LOOKUP, wire.FUSE_UNLINK, wire.FUSE_RMDIR]


@pytest.mark.parametrize("body", [b"", b"\0", b"x", b"a/b\0", b"/\0", b"x\0y\0", b"x\0y", b"n" * 1025 + b"\0"])
@pytest.mark.parametrize("opcode", NAMES)
def test_what_is_no_name_is_refused(opcode: int, body: bytes) -> None:
    with FakeKernel(MemoryFs()) as kernel:
        assert kernel.ask(opcode, 1, body) == (errno.EINVAL, b"")


BAD = {
    "rename with one name": (wire.FUSE_RENAME2, wire.fuse_rename2_in.pack(1, 0, 0) + b"a\0"),
    "rename to a path": (wire.FUSE_RENAME, wire.fuse_rename_in.pack(1) + b"a\0b/c\0"),
    "symlink without a target": (wire.FUSE_SYMLINK, b"a\0\0"),
    "symlink with too long a target": (wire.FUSE_SYMLINK, b"a\0" + b"t" * 4097 + b"\0"),
    "write of less than is said": (wire.FUSE_WRITE, wire.fuse_write_in.pack(7, 0, 10, 0, 0, 0, 0) + b"123"),
    "write of more than is said": (wire.FUSE_WRITE, wire.fuse_write_in.pack(7, 0, 1, 0, 0, 0, 0) + b"123"),
    "write at a negative offset": (wire.FUSE_WRITE, wire.fuse_write_in.pack(7, 1 << 63, 1, 0, 0, 0, 0) + b"1"),
    "read at a negative offset": (wire.FUSE_READ, wire.fuse_read_in.pack(7, 1 << 63, 1, 0, 0, 0, 0)),
    "value shorter than is said": (wire.FUSE_SETXATTR, wire.fuse_setxattr_in.pack(4, 0) + b"user.a\0xyz"),
    "value without a name": (wire.FUSE_SETXATTR, wire.fuse_setxattr_in.pack(3, 0) + b"\0xyz"),
    "xattr's name without an end": (wire.FUSE_GETXATTR, wire.fuse_getxattr_in.pack(0, 0) + b"user.a"),
    "lock that ends before it starts": (wire.FUSE_SETLK, lock_body(1, fcntl.F_WRLCK, start=9, end=3)),
    "lock beyond all files": (wire.FUSE_GETLK, lock_body(1, fcntl.F_WRLCK, end=1 << 63)),
    "range beyond all files": (wire.FUSE_FALLOCATE, wire.fuse_fallocate_in.pack(7, 1 << 62, 1 << 62, 0, 0)),
}


@pytest.mark.parametrize("what", BAD)
def test_malformed_requests_are_refused(what: str) -> None:
    opcode, body = BAD[what]
    with FakeKernel(MemoryFs(), Settings(flags=FLAGS)) as kernel:
        assert kernel.ask(opcode, 1, body) == (errno.EINVAL, b"")
        assert kernel.ask(wire.FUSE_STATFS, 1)[0] == 0, "the session must go on"


def test_a_negative_place_has_neither_data_nor_hole(caplog: pytest.LogCaptureFixture) -> None:
    """The kernel passes on the program's offset, so a negative one is not reported as the kernel's fault."""
    with FakeKernel(MemoryFs(), Settings(flags=FLAGS)) as kernel:
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            body = wire.fuse_lseek_in.pack(7, 2**64 - 1, whence, 0)
            assert kernel.ask(wire.FUSE_LSEEK, 1, body) == (errno.ENXIO, b"")
    assert caplog.text == ""


def test_every_opcode_cut_short() -> None:
    """Requests without their fixed part get EINVAL; the session survives all of them."""
    needs_nothing = {wire.FUSE_READLINK, wire.FUSE_STATFS, wire.FUSE_DESTROY, wire.FUSE_IOCTL}
    silent = {wire.FUSE_FORGET, wire.FUSE_BATCH_FORGET}
    with FakeKernel(MemoryFs()) as kernel:
        for opcode in {*OPCODES, wire.FUSE_SETLK, wire.FUSE_SETLKW, wire.FUSE_INTERRUPT, *silent}:
            if opcode in silent:
                kernel.send(opcode, 1, b"abc")
            elif opcode not in needs_nothing:
                assert kernel.ask(opcode, 1, b"abc") == (errno.EINVAL, b""), opcode
        assert kernel.ask(wire.FUSE_STATFS)[0] == 0


@pytest.mark.parametrize("opcode", [0, 7, 19, wire.FUSE_BMAP, wire.FUSE_POLL, 4096, 2**32 - 1])
def test_unknown_requests_are_enosys(opcode: int) -> None:
    with FakeKernel(MemoryFs()) as kernel:
        assert kernel.ask(opcode) == (errno.ENOSYS, b"")


@pytest.mark.parametrize("opcode", [wire.FUSE_SYNCFS, wire.FUSE_TMPFILE, 52, 53])
def test_requests_of_a_later_version_than_was_agreed_on_are_enosys(opcode: int) -> None:
    """The kernel sends them all the same (52 is FUSE_STATX of 7.39, 53 is FUSE_COPY_FILE_RANGE_64 of 7.45), and stops
    using them at the first ENOSYS."""
    with FakeKernel(MemoryFs()) as kernel:
        assert kernel.ask(opcode, 1, bytes(24)) == (errno.ENOSYS, b"")
        assert kernel.ask(wire.FUSE_STATFS)[0] == 0


def test_lengths_that_lie(caplog: pytest.LogCaptureFixture) -> None:
    with FakeKernel(MemoryFs()) as kernel:
        for length in (0, 39, 41, 1000, 2**32 - 1):
            assert kernel.ask(wire.FUSE_LOOKUP, 1, b"f\0", length=length)[0] == errno.EINVAL
        kernel.send_raw(b"x")
        kernel.send_raw(request(wire.FUSE_LOOKUP, 2)[:39])
        assert kernel.ask(wire.FUSE_STATFS)[0] == 0
    assert "not a request" in caplog.text


def test_noise(caplog: pytest.LogCaptureFixture) -> None:
    """Each of ten thousand random requests is answered, and nothing breaks."""
    caplog.set_level(logging.CRITICAL)
    noise = random.Random(7)
    too_much_memory = {wire.FUSE_WRITE, wire.FUSE_FALLOCATE, wire.FUSE_SETATTR}  # might make a file of 8 EiB
    opcodes = sorted(OPCODES - too_much_memory)
    with FakeKernel(MemoryFs()) as kernel:
        for _ in range(10_000):
            small = noise.choice([0, 0, 1, 8, 100]).to_bytes(8, "little")
            words = [small, bytes(8), noise.randbytes(8), b"name\0\0\0\0"]
            body = b"".join(noise.choice(words) for _ in range(noise.randrange(14)))
            error, _ = kernel.ask(noise.choice(opcodes), noise.choice([1, 1, 2, 3, 2**64 - 1]), body)
            assert error in errno.errorcode or error == 0
        assert kernel.ask(wire.FUSE_STATFS)[0] == 0


# ---------------------------------------------------------------------- what operations raise and return


class Broken(Operations):
    """A file system whose operations fail in every way."""

    def lookup(self, context: Context, parent: int, name: bytes) -> Entry:
        raise {
            b"errno": OSError(errno.EDQUOT, "full"),
            b"none": OSError("no number"),
            b"large": OSError(5000, "too large for the kernel"),
            b"negative": OSError(-5, "negative"),
            b"bug": ZeroDivisionError(),
        }[name]

    def read(self, context: Context, ino: int, handle: int, offset: int, size: int) -> Data:
        return b"x" * (size + 1) if offset else [b"a"] * size

    def readlink(self, context: Context, ino: int) -> bytes:
        raise SystemError("a bug")


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"errno", errno.EDQUOT),
        (b"none", errno.EIO),
        (b"large", errno.EIO),
        (b"negative", errno.EIO),
        (b"bug", errno.EIO),
        (b"unknown", errno.EIO),
    ],
)
def test_what_an_operation_raises_becomes_an_errno(name: bytes, number: int, caplog: pytest.LogCaptureFixture) -> None:
    with FakeKernel(Broken()) as kernel:
        assert kernel.ask(wire.FUSE_LOOKUP, 1, name + b"\0") == (number, b"")
    if name in (b"bug", b"unknown", b"none"):
        assert "lookup of inode 1 failed unexpectedly" in caplog.text


def test_more_data_than_was_asked_for_is_an_error_and_many_parts_are_one() -> None:
    with FakeKernel(Broken()) as kernel:
        assert kernel.ask(wire.FUSE_READ, 1, wire.fuse_read_in.pack(0, 1, 10, 0, 0, 0, 0))[0] == errno.EIO
        asked = wire.fuse_read_in.pack(0, 0, 5000, 0, 0, 0, 0)
        assert kernel.ask(wire.FUSE_READ, 1, asked) == (0, b"a" * 5000)


def test_a_file_system_that_has_nothing() -> None:
    with FakeKernel(Operations()) as kernel:
        assert kernel.ask(wire.FUSE_LOOKUP, 1, b"x\0")[0] == errno.ENOSYS
        assert kernel.ask(wire.FUSE_GETATTR, 1, wire.fuse_getattr_in.pack(0, 0, 0))[0] == errno.ENOSYS
        assert kernel.ask(wire.FUSE_IOCTL, 1, bytes(32))[0] == errno.ENOTTY


def test_a_name_that_is_not_there_can_be_remembered() -> None:
    class Remembers(Operations):
        def lookup(self, context: Context, parent: int, name: bytes) -> Entry:
            nobody: Attributes | None = None
            return Entry(nobody, 1.5)

    with FakeKernel(Remembers()) as kernel:
        error, answer = kernel.ask(wire.FUSE_LOOKUP, 1, b"x\0")
        fields = wire.fuse_entry_out.unpack(answer)
        assert (error, fields[0], fields[2], fields[4]) == (0, 0, 1, 500_000_000)


# ---------------------------------------------------------------------- waiting


def test_a_waiting_lock_is_answered_when_it_is_granted_and_holds_up_nothing() -> None:
    with FakeKernel(MemoryFs(), Settings(flags=FLAGS)) as kernel:
        ino = create(kernel)
        assert kernel.ask(wire.FUSE_SETLK, ino, lock_body(1, fcntl.F_WRLCK)) == (0, b"")
        assert kernel.ask(wire.FUSE_SETLK, ino, lock_body(2, fcntl.F_WRLCK))[0] == errno.EAGAIN
        waiting = {kernel.send(wire.FUSE_SETLKW, ino, lock_body(n, fcntl.F_WRLCK)): n for n in range(2, 102)}
        assert kernel.ask(wire.FUSE_STATFS)[0] == 0
        error, answer = kernel.ask(wire.FUSE_GETLK, ino, lock_body(500, fcntl.F_RDLCK))
        assert (error, wire.fuse_lk_out.unpack(answer)[2]) == (0, fcntl.F_WRLCK)
        holder = 1
        while waiting:  # several threads read, so the order of the waiters is not known
            closed = kernel.send(wire.FUSE_FLUSH, ino, wire.fuse_flush_in.pack(7, 0, 0, holder))
            answers = dict(kernel.receive()[:2] for _ in range(2))
            assert answers.pop(closed) == 0
            ((granted, error),) = answers.items()
            assert error == 0
            holder = waiting.pop(granted)


def test_an_interrupted_lock_ends_with_eintr() -> None:
    with FakeKernel(MemoryFs(), Settings(flags=FLAGS)) as kernel:
        ino = create(kernel)
        kernel.ask(wire.FUSE_SETLK, ino, lock_body(1, fcntl.F_WRLCK))
        waiting = kernel.send(wire.FUSE_SETLKW, ino, lock_body(2, fcntl.F_WRLCK))
        while True:  # EAGAIN asks for the INTERRUPT again while the lock is being handled
            interrupt = kernel.send(wire.FUSE_INTERRUPT, 0, wire.fuse_interrupt_in.pack(waiting))
            unique, error, _ = kernel.receive()
            if unique == waiting:
                break
            assert (unique, error) == (interrupt, errno.EAGAIN)
        assert error == errno.EINTR
        assert kernel.ask(wire.FUSE_INTERRUPT, 0, wire.fuse_interrupt_in.pack(waiting))[0] == errno.EAGAIN
        kernel.ask(wire.FUSE_FLUSH, ino, wire.fuse_flush_in.pack(7, 0, 0, 1))
        assert kernel.ask(wire.FUSE_SETLK, ino, lock_body(3, fcntl.F_WRLCK))[0] == 0, "the waiter holds nothing"


def test_an_interrupt_before_the_operation_listens_is_not_lost() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(MemoryFs):
        def set_lock(self, *arguments: object, **named: object) -> None:
            entered.set()
            assert go_on.wait(10)
            super().set_lock(*arguments, **named)  # type: ignore[arg-type]

    with FakeKernel(Slow(), Settings(flags=FLAGS)) as kernel:
        ino = create(kernel)
        go_on.set()
        kernel.ask(wire.FUSE_SETLK, ino, lock_body(1, fcntl.F_WRLCK))
        go_on.clear()
        entered.clear()
        waiting = kernel.send(wire.FUSE_SETLKW, ino, lock_body(2, fcntl.F_WRLCK))
        assert entered.wait(10)
        kernel.send(wire.FUSE_INTERRUPT, 0, wire.fuse_interrupt_in.pack(waiting))
        assert kernel.ask(wire.FUSE_STATFS)[0] == 0
        go_on.set()
        assert kernel.receive()[:2] == (waiting, errno.EINTR)


def test_an_interrupt_of_what_cannot_be_interrupted_is_not_sent_again() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(MemoryFs):
        def readlink(self, context: Context, ino: int) -> bytes:
            entered.set()
            assert go_on.wait(10)
            return b"there"

    with FakeKernel(Slow()) as kernel:
        reading = kernel.send(wire.FUSE_READLINK)
        assert entered.wait(10)
        kernel.send(wire.FUSE_INTERRUPT, 0, wire.fuse_interrupt_in.pack(reading))
        assert kernel.ask(wire.FUSE_STATFS)[0] == 0
        go_on.set()
        assert kernel.receive() == (reading, 0, b"there")


def test_slow_operations_are_joined_by_others_up_to_the_number_of_threads() -> None:
    inside, go_on = threading.Semaphore(0), threading.Event()

    class Slow(MemoryFs):
        def readlink(self, context: Context, ino: int) -> bytes:
            inside.release()
            assert go_on.wait(10)
            return b"there"

    with FakeKernel(Slow()) as kernel:
        asked = {kernel.send(wire.FUSE_READLINK) for _ in range(40)}
        assert all(inside.acquire(timeout=10) for _ in range(16))
        go_on.set()
        assert {kernel.receive()[0] for _ in range(40)} == asked


def test_waiters_at_the_end_are_told() -> None:
    told: list[bool] = []

    class Listens(MemoryFs):
        def set_lock(self, context: Context, ino: int, request: object, *, wait: bool, reply: object) -> None:
            reply.on_interrupt(lambda: told.append(True))  # type: ignore[attr-defined]
            said.set()

    said = threading.Event()
    with FakeKernel(Listens(), Settings(flags=FLAGS)) as kernel:
        kernel.send(wire.FUSE_SETLKW, 1, lock_body(1, fcntl.F_WRLCK))
        assert said.wait(10)
    assert told == [True]


# ---------------------------------------------------------------------- notifications, INIT, the end


def test_notifications() -> None:
    with FakeKernel(MemoryFs()) as kernel:
        device = kernel.session.device
        assert device.inval_inode(5, -1)
        assert kernel.receive() == (0, -wire.FUSE_NOTIFY_INVAL_INODE, wire.fuse_notify_inval_inode_out.pack(5, -1, 0))
        assert device.inval_entry(1, b"name", expire_only=True)
        fixed = wire.fuse_notify_inval_entry_out.pack(1, 4, wire.FUSE_EXPIRE_ONLY)
        assert kernel.receive() == (0, -wire.FUSE_NOTIFY_INVAL_ENTRY, fixed + b"name\0")
        assert device.delete(1, 5, b"name")
        fixed = wire.fuse_notify_delete_out.pack(1, 5, 4, 0)
        assert kernel.receive() == (0, -wire.FUSE_NOTIFY_DELETE, fixed + b"name\0")


def test_threads_end_when_there_is_little_to_do() -> None:
    with FakeKernel(MemoryFs()) as kernel:
        for _ in itertools.repeat(None, 50):
            for unique in [kernel.send(wire.FUSE_STATFS) for _ in range(20)]:
                kernel.receive()
                assert unique
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("fuse-")]
        assert 1 <= len(names) <= 16


def test_a_session_that_is_cut_off_answers_all_with_an_error() -> None:
    files = MemoryFs()
    with FakeKernel(files) as kernel:
        assert kernel.ask(wire.FUSE_STATFS)[0] == 0
        kernel.session.cut_off()
        assert kernel.ask(wire.FUSE_STATFS)[0] == errno.ENOTCONN
        kernel.send(wire.FUSE_FORGET, 1, wire.fuse_forget_in.pack(1))
        assert kernel.ask(wire.FUSE_LOOKUP, 1, b"x\0")[0] == errno.ENOTCONN
    assert files.destroyed == 1


def test_the_environment_of_the_tests_leaves_nothing_open() -> None:
    """Only new descriptors count, since those that an earlier test left open may be closed meanwhile."""
    before = open_files()
    with FakeKernel(MemoryFs()) as kernel:
        kernel.ask(wire.FUSE_STATFS)
        assert open_files() - before
    assert not open_files() - before


def open_files() -> Counter[str]:
    """What this process has open, by the kernel's names: sockets and pipes with their inode."""
    found: Counter[str] = Counter()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own, or one closed just now
            found[str(descriptor.readlink())] += 1
    return found
