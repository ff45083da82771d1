"""Conformance: folders that stay open while they change. rewinddir, telldir, seekdir, and several readers."""

# ruff: noqa: PTH208
# pathlib cannot list descriptors

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from conformance.fs import OsFs
from conformance.registry import kernel_case, opened

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fdopendir.restype = ctypes.c_void_p
_libc.readdir64.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long
_NAME_AT = 19
"""The offset of `d_name` in struct dirent64."""
DOTS = [b".", b".."]


class Stream:
    """A DIR stream of the C library."""

    def __init__(self, descriptor: int) -> None:
        self._stream = ctypes.c_void_p(_libc.fdopendir(descriptor))
        assert self._stream.value

    def next(self) -> bytes | None:
        """Return the next name."""
        entry = _libc.readdir64(self._stream)
        return ctypes.string_at(entry + _NAME_AT) if entry else None

    def rest(self) -> list[bytes]:
        """Return all names from here on."""
        return list(iter(self.next, None))

    def tell(self) -> int:
        return int(_libc.telldir(self._stream))

    def seek(self, place: int) -> None:
        _libc.seekdir(self._stream, ctypes.c_long(place))

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)

    def close(self) -> None:
        assert _libc.closedir(self._stream) == 0


@contextmanager
def stream(fs: OsFs, path: bytes = b"") -> Iterator[Stream]:
    found = Stream(os.open(fs.path(path), os.O_RDONLY | os.O_DIRECTORY))
    try:
        yield found
    finally:
        found.close()


def touch(fs: OsFs, *paths: bytes) -> None:
    for path in paths:
        with opened(fs, path):
            pass


@kernel_case
def a_folder_that_is_rewound_shows_what_has_changed(fs: OsFs) -> None:
    touch(fs, b"old", b"stays")
    with stream(fs) as names:
        assert sorted(names.rest()) == [*DOTS, b"old", b"stays"]
        fs.unlink(b"old")
        touch(fs, b"new")
        assert names.rest() == []
        names.rewind()
        assert sorted(names.rest()) == [*DOTS, b"new", b"stays"]
        fs.rename(b"new", b"newer")
        names.rewind()
        assert sorted(names.rest()) == [*DOTS, b"newer", b"stays"]


@kernel_case
def a_folder_that_was_open_for_long_is_listed_as_it_is_now(fs: OsFs) -> None:
    """Programs that work relative to a folder call `os.listdir(descriptor)` again and again."""
    fs.mkdir(b"d")
    folder = os.open(fs.path(b"d"), os.O_RDONLY | os.O_DIRECTORY)
    try:
        touch(fs, b"d/one")
        assert os.listdir(folder) == ["one"]
        fs.rename(b"d/one", b"d/two")
        assert os.listdir(folder) == ["two"]
        fs.unlink(b"d/two")
        assert os.lseek(folder, 0, os.SEEK_SET) == 0
        assert os.listdir(folder) == []
    finally:
        os.close(folder)


@kernel_case
def a_place_in_a_folder_is_found_again(fs: OsFs) -> None:
    """Whatever is created meanwhile: after telldir() and seekdir() each name that stays is returned once."""
    expected = {b"%03d" % number for number in range(300)}
    touch(fs, *sorted(expected))
    with stream(fs) as names:
        first = [names.next() for _ in range(100)]
        place = names.tell()
        then = names.rest()
        touch(fs, b"000a", b"zzz")
        names.seek(place)
        again = names.rest()
        assert [name for name in again if name in expected] == [name for name in then if name in expected]
        assert {*first, *again} >= expected
        names.rewind()
        assert sorted(names.rest()) == sorted([*DOTS, *expected, b"000a", b"zzz"])


@kernel_case
def an_open_folder_that_was_removed_is_empty(fs: OsFs) -> None:
    fs.mkdir(b"d")
    touch(fs, b"d/f")
    with stream(fs, b"d") as names:
        assert sorted(names.rest()) == [*DOTS, b"f"]
        fs.unlink(b"d/f")
        fs.rmdir(b"d")
        names.rewind()
        assert b"f" not in names.rest()
