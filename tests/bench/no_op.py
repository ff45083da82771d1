"""A Vfs that keeps names and sizes but no data, behind the real bindings, to measure the cost of a binding alone.

`python -m bench.no_op MOUNTPOINT BINDING` mounts it with dfsmount's own options and prints `mounted`; SIGTERM ends
it. Reads return zeros, and writes are discarded. Only one thread at a time makes names; the rest needs no lock.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Final

from dfsfuse.common.events import Events
from dfsfuse.mount import bindings, options
from dfsfuse.vfs.attributes import AttributeChanges, Attributes, DirectoryEntry, Space

ROOT: Final = 1
_ZEROS: Final = bytes(1 << 20)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class NoOpVfs:
    """The methods of `dfsfuse.vfs.vfs.Vfs` that the bindings call, with nothing behind them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(ROOT + 1)
        self._handles = itertools.count(1)
        self._names: dict[int, dict[bytes, int]] = {ROOT: {}}
        self._inodes = {ROOT: _new(ROOT, stat.S_IFDIR | 0o755)}
        self._open: dict[int, int] = {}
        self._zeros: dict[int, bytes] = {}
        self.events = Events()
        self.locks = SimpleNamespace(
            check=_nothing,
            closed=_nothing,
            closing=_nothing,
            releasing=_nothing,
            released=_nothing,
            may_have_written=lambda *_, **__: False,
            may_matter=False,
        )
        self.ending = SimpleNamespace(is_near=_nothing)

    # -------------------------------------------------------------- servers

    def all_servers_answer(self) -> bool:
        return True

    def answering(self) -> frozenset[int]:
        return frozenset({1, 2, 3, 4})

    def lacks_servers(self) -> bool:
        return False

    # -------------------------------------------------------------- names

    def lookup(self, parent: int, name: bytes, *_: object, **__: object) -> Attributes:
        ino = self._names[parent].get(name)
        if ino is None:
            raise _error(errno.ENOENT)
        return self._inodes[ino]

    def resolve(self, names: Sequence[bytes], **_: object) -> Attributes:
        found = self._inodes[ROOT]
        for name in names:
            found = self.lookup(found.ino, name)
        return found

    def forget(self, ino: int, holds: int = 1) -> None:
        pass

    def is_held(self, ino: int) -> bool:
        return True

    def is_open(self, ino: int) -> bool:
        return ino in self._open.values()

    def is_unsaved(self, ino: int) -> bool:
        return False

    def may_be_mapped(self, ino: int) -> bool:
        return False

    def is_any_read(self) -> bool:
        return False

    def is_reading_noticed(self, handle: int) -> bool:
        return False

    def look_for_changes(self) -> None:
        pass

    def mkdir(self, parent: int, name: bytes, mode: int, *_: object, **__: object) -> Attributes:
        return self._make(parent, name, stat.S_IFDIR | mode)

    def _make(self, parent: int, name: bytes, mode: int) -> Attributes:
        with self._lock:
            if name in self._names[parent]:
                raise _error(errno.EEXIST)
            ino = next(self._numbers)
            made = self._inodes[ino] = _new(ino, mode)
            if stat.S_ISDIR(mode):
                self._names[ino] = {}
            self._names[parent][name] = ino
            return made

    def unlink(self, parent: int, name: bytes, *_: object) -> None:
        with self._lock:
            del self._names[parent][name]

    rmdir = unlink

    # -------------------------------------------------------------- attributes

    def getattr(self, ino: int, _handle: int | None = None) -> Attributes:
        return self._inodes[ino]

    def setattr(self, ino: int, changes: AttributeChanges, *_: object, **__: object) -> Attributes:
        if changes.size is not None:
            self._inodes[ino] = _new(ino, self._inodes[ino].mode, changes.size)
        return self._inodes[ino]

    def getxattr(self, _ino: int, _name: bytes) -> bytes:
        raise _error(errno.ENODATA)

    def statfs(self) -> Space:
        return Space(4096, 1 << 30, 1 << 30, 1 << 30, 1 << 30, 1 << 30, 255)

    # -------------------------------------------------------------- files and folders

    def create(
        self, parent: int, name: bytes, mode: int, flags: int, *_: object, **__: object
    ) -> tuple[Attributes, int]:
        made = self._make(parent, name, stat.S_IFREG | mode)
        return made, self.open(made.ino, flags)

    def open(self, ino: int, _flags: int = 0) -> int:
        handle = next(self._handles)
        self._open[handle] = ino
        return handle

    opendir = open

    def read(self, handle: int, offset: int, size: int) -> bytes:
        left = max(0, min(size, self._inodes[self._open[handle]].size - offset))
        if left not in self._zeros:  # requests have few different sizes, and slicing would cost a copy
            self._zeros[left] = _ZEROS[:left]
        return self._zeros[left]

    def write(self, handle: int, offset: int, data: memoryview, **_: object) -> int:
        ino, end = self._open[handle], offset + len(data)
        if end > self._inodes[ino].size:
            self._inodes[ino] = _new(ino, self._inodes[ino].mode, end)
        return len(data)

    def flush(self, handle: int) -> None:
        pass

    fsync = flush

    def release(self, handle: int, **_: object) -> None:
        del self._open[handle]

    releasedir = release

    def readdir(self, handle: int, offset: int = 0) -> Iterator[DirectoryEntry]:
        names = list(self._names[self._open[handle]].items())
        for at, (name, ino) in enumerate(names[offset:], offset + 1):
            yield DirectoryEntry(name, ino, stat.S_IFMT(self._inodes[ino].mode), at)


def _nothing(*_: object, **__: object) -> None:
    pass


def _new(ino: int, mode: int, size: int = 0) -> Attributes:
    return Attributes(ino, mode, 1, os.getuid(), os.getgid(), size, 0, 0, 0, 0, size // 512)


def main(mountpoint: str, binding: str) -> None:
    """Mount, report it, and serve until it is unmounted."""
    parsed = options.parse([f"binding={binding}"], as_root=os.geteuid() == 0)
    with bindings.signals_held():
        bindings.serve(NoOpVfs(), Path(mountpoint), parsed, lambda: print("mounted", flush=True))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
