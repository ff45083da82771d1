"""The kernel's table of mounts, /proc/PID/mountinfo (proc(5)), parsed as bytes that any user may have chosen.

Invariants: a line ends at a newline byte and nothing else, a field at a space byte, since the kernel writes spaces,
tabs, newlines and backslashes within a field as three octal digits, and nothing else is special: a carriage return, a
no-break space and bytes that are not UTF-8 appear unchanged. Fields may be empty. A line that does not have this form
(a driver's own text may not) is skipped, without affecting the others. Paths are returned as `os.fsdecode` makes them.
Touches no mount. No threads, no state.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOUNT_TABLE: Final = Path("/proc/self/mountinfo")
FILE_SYSTEM_TYPE: Final = "fuse.dfs"
_OPTIONAL_FROM: Final = 6
"""Index from which there are any number of optional fields, until one that is `-`."""
_ESCAPED: Final = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True)
class Mount:
    """One line of the table."""

    id: int
    parent: int
    device: str
    """MAJOR:MINOR: the same for all mounts of one file system, in all mount namespaces."""
    mountpoint: str
    type: str
    source: str
    owner: int | None = None
    """The number of the user who mounted it, if it is a FUSE mount."""
    automounter: int | None = None
    """If this is a mountpoint of autofs: the process group that may touch it, and that mounts over it on demand. All
    other processes wait there for that."""

    @property
    def is_ours(self) -> bool:
        """Whether dfsfuse mounted it."""
        return self.type == FILE_SYSTEM_TYPE


def read(table: Path = MOUNT_TABLE) -> list[Mount]:
    """All mounts, as the kernel lists them. Raises OSError."""
    return parse(table.read_bytes())


def parse(data: bytes) -> list[Mount]:
    """The mounts in the table's text."""
    return [mount for line in data.split(b"\n") if (mount := _parse_line(line)) is not None]


def _parse_line(line: bytes) -> Mount | None:
    """`41 29 0:45 / /mnt/dfs rw,relatime shared:1 - fuse.dfs alice@10.0.0.1 rw`."""
    fields = line.split(b" ")
    try:
        dash = fields.index(b"-", _OPTIONAL_FROM)
        options = fields[dash + 3] if len(fields) > dash + 3 else b""
        return Mount(
            id=int(fields[0]),
            parent=int(fields[1]),
            device=fields[2].decode("ascii"),
            mountpoint=_unescape(fields[4]),
            type=_unescape(fields[dash + 1]),
            source=_unescape(fields[dash + 2]),
            owner=_number(b"user_id", options),
            automounter=_number(b"pgrp", options) if fields[dash + 1] == b"autofs" else None,
        )
    except (ValueError, IndexError):
        return None


def _number(name: bytes, options: bytes) -> int | None:
    found = re.search(rb"(?:^|,)" + name + rb"=(\d+)(?:,|$)", options)
    return int(found[1]) if found else None


def _unescape(field: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), field))


def topmost(mounts: Iterable[Mount], mountpoint: str) -> Mount | None:
    """The mount that is visible at `mountpoint`, of those that are mounted over each other there; None if there is
    none."""
    found = [mount for mount in mounts if mount.mountpoint == mountpoint]
    covered = {mount.parent for mount in found}
    shown = [mount for mount in found if mount.id not in covered]
    return shown[-1] if shown else None
