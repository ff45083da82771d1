"""The list of conformance cases, and the helpers for writing them.

A case is a function that gets an empty file system (`Fs`) and asserts. `@case` registers it; `@kernel_case` is for
cases that need a kernel in between (mmap, sendfile, several processes): they get an `OsFs`, whose `root` is a path. The
same list runs on a plain folder, the library and the mount (tests/integration/test_conformance.py), so a case may
assert only what POSIX or Linux promises for all of them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from conformance.fs import Fs, OsFs


@dataclass(frozen=True)
class Case:
    """A case; if `needs_kernel`, it cannot run on the library alone."""

    name: str
    run: Callable[[Any], None]
    needs_kernel: bool


CASES: list[Case] = []


def case(function: Callable[[Fs], None]) -> Callable[[Fs], None]:
    """Register a case."""
    CASES.append(Case(_name_of(function), function, needs_kernel=False))
    return function


def kernel_case(function: Callable[[OsFs], None]) -> Callable[[OsFs], None]:
    """Register a case that needs a path of the kernel."""
    CASES.append(Case(_name_of(function), function, needs_kernel=True))
    return function


def _name_of(function: Callable[..., None]) -> str:
    name = function.__name__
    assert all(known.name != name for known in CASES), f"two cases are called {name}"
    return name


@contextlib.contextmanager
def fails(*numbers: int) -> Iterator[None]:
    """The block must raise `OSError` with one of these errnos."""
    expected = " or ".join(errno.errorcode[number] for number in numbers)
    try:
        yield
    except OSError as error:
        found = errno.errorcode.get(error.errno or 0, str(error))
        assert error.errno in numbers, f"failed with {found}, not {expected}"
    else:
        raise AssertionError(f"succeeded, but {expected} was due")


@contextlib.contextmanager
def opened(fs: Fs, path: bytes, flags: int = os.O_RDWR | os.O_CREAT, mode: int = 0o644) -> Iterator[int]:
    """Open a file, and close it at the end of the block."""
    fd = fs.open(path, flags, mode)
    try:
        yield fd
    finally:
        fs.close(fd)


def write_all(fs: Fs, fd: int, data: bytes, offset: int = 0) -> None:
    """Call pwrite until everything is written."""
    view = memoryview(data)
    while view:
        written = fs.pwrite(fd, bytes(view), offset)
        assert 0 < written <= len(view)
        view, offset = view[written:], offset + written


def read_all(fs: Fs, fd: int, offset: int = 0, step: int = 1 << 20) -> bytes:
    """Call pread up to the end."""
    parts = []
    while part := fs.pread(fd, step, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def write_file(fs: Fs, path: bytes, data: bytes = b"") -> None:
    """Create or replace a file."""
    with opened(fs, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
        write_all(fs, fd, data)


def read_file(fs: Fs, path: bytes) -> bytes:
    """Return a file's content, opening it anew."""
    with opened(fs, path, os.O_RDONLY) as fd:
        return read_all(fs, fd)


def content(size: int, seed: int = 0) -> bytes:
    """Return bytes that differ between offsets and seeds, and are the same in each call."""
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(size)


def same(found: bytes, expected: bytes) -> None:
    """Assert equality; for long strings, report where they differ instead of showing them."""
    if found == expected:
        return
    at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
    at = min(len(found), len(expected)) if at is None else at
    shown = f"{found[at : at + 16]!r}, not {expected[at : at + 16]!r}"
    raise AssertionError(f"{len(found)} bytes, expected {len(expected)}; from byte {at}: {shown}")
