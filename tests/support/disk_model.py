"""A disk that forgets what was not fsynced: it is fed with the changes that `crash_points.c` has traced, one by one.

    disk = ForgetfulDisk(folder)
    for change in read_trace(path, folder):
        disk.change(change)
        disk.write_out(elsewhere, Lost.EVERYTHING)    # the folder as it may be after a power cut now

The rules are the strict ones of POSIX: fsync of a file keeps its content but not its name, and fsync of a folder keeps
its names but not their contents. What a disk keeps of the rest is undefined, so there are several answers (`Lost`).
Pure, except for reading the trace and writing a state out.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

_RECORD = struct.Struct("<cIIQ")


class Change(NamedTuple):
    """A change to the file system. `path` is relative; `op` is one of these:

    c: create a file, d: make a folder, w: write `data` at `number`, t: truncate or extend to `number`, f: fsync,
    r: rename to `data`, u: unlink
    """

    op: str
    path: str
    data: bytes
    number: int

    @property
    def is_said(self) -> bool:
        """Whether this is the process recording a finished step."""
        return self.path.endswith(".said")

    @property
    def is_point(self) -> bool:
        """Whether `crash_points.c` counts this change."""
        return not self.is_said and not self.path.endswith("-shm")

    @property
    def is_one_of_many(self) -> bool:
        """Whether it creates one of the 256 folders of pieces, except the first and the last, which are enough to
        check."""
        return self.op == "d" and re.search(r"/pieces/(?!00|ff)[0-9a-f]{2}$", self.path) is not None


def read_trace(trace: Path, folder: Path) -> list[Change]:
    """The changes below `folder`, in order."""
    data = trace.read_bytes()
    changes: list[Change] = []
    position = 0
    while position < len(data):
        op, path_length, data_length, number = _RECORD.unpack_from(data, position)
        position += _RECORD.size
        path = data[position : position + path_length].decode()
        position += path_length
        rest = data[position : position + data_length]
        position += data_length
        if op == b"r":
            rest = str(Path(rest.decode()).relative_to(folder)).encode()
        # The folder itself is fsynced too, as "."
        changes.append(Change(op.decode(), str(Path(path).relative_to(folder)), rest, number))
    return changes


class Lost(Enum):
    """Which of the changes without fsync are lost."""

    NOTHING = "nothing"  # as after kill -9
    EVERYTHING = "names and contents"
    CONTENTS = "contents"  # a name may be there without its content
    NAMES = "names"


@dataclass(eq=False)
class File:
    """A file's content, and the content that is certain to survive a power cut."""

    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass(eq=False)
class Folder:
    """A folder's names, and those that are certain to survive a power cut."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)


class ForgetfulDisk:
    """A folder on such a disk; at first it is empty and durable."""

    def __init__(self) -> None:
        self._root = Folder()

    def change(self, change: Change) -> None:
        """Apply a change. Raises KeyError if that is impossible, which means that the trace is incomplete."""
        parent, name = self._parent(change.path)
        match change.op:
            case "c":
                parent.names[name] = File()
            case "d":
                parent.names[name] = Folder()
            case "u":
                del parent.names[name]
            case "r":
                moved = parent.names.pop(name)
                target, target_name = self._parent(change.data.decode())
                target.names[target_name] = moved
            case "f":
                self._sync(parent.names[name] if name else self._root)
            case _:
                file = parent.names[name]
                assert isinstance(file, File), change
                self._write(file, change)

    def state(self, lost: Lost) -> dict[str, bytes | None]:
        """Return what is there after a power cut: path and content, None for a folder; without SQLite's shared
        memory."""
        return dict(self._walk(self._root, "", lost))

    def _walk(self, folder: Folder, prefix: str, lost: Lost) -> Iterator[tuple[str, bytes | None]]:
        names = folder.synced if lost in (Lost.EVERYTHING, Lost.NAMES) else folder.names
        for name, found in names.items():
            if isinstance(found, Folder):
                yield prefix + name, None
                yield from self._walk(found, f"{prefix}{name}/", lost)
            elif not name.endswith(("-shm", ".said")):
                yield prefix + name, found.synced if lost in (Lost.EVERYTHING, Lost.CONTENTS) else bytes(found.content)

    def _parent(self, path: str) -> tuple[Folder, str]:
        folder = self._root
        if path == ".":
            return folder, ""
        *above, name = path.split("/")
        for part in above:
            found = folder.names[part]
            assert isinstance(found, Folder), path
            folder = found
        return folder, name

    @staticmethod
    def _sync(found: File | Folder) -> None:
        if isinstance(found, Folder):
            found.synced = dict(found.names)
        else:
            found.synced = bytes(found.content)

    @staticmethod
    def _write(file: File, change: Change) -> None:
        if change.op == "t":
            del file.content[change.number :]
            file.content.extend(bytes(change.number - len(file.content)))
        else:
            end = change.number + len(change.data)
            file.content.extend(bytes(max(0, end - len(file.content))))
            file.content[change.number : end] = change.data


def write_out(state: dict[str, bytes | None], folder: Path) -> None:
    """Create `folder` with this state."""
    folder.mkdir()
    for path, content in state.items():
        if content is None:
            (folder / path).mkdir(mode=0o700)
        else:
            (folder / path).write_bytes(content)
