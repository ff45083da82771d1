"""The whole map of a namespace, decoded: the input of `fsck`. Pure.

What cannot be read, because it is damaged or written by a newer program, is kept apart and reported, and nothing that
it might affect is ever changed. `Draft` collects the changes: the map as it is, with changes on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dfsfuse.data import extents
from dfsfuse.data.extents import Region
from dfsfuse.namespace.ops import orphans
from dfsfuse.namespace.ops.lock_sessions import lifetime_s
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys, locks
from dfsfuse.namespace.records.inode import Entry, Inode

Items = Mapping[bytes, bytes]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. `path` (or a stand-in for one) says where, `text` says what, as the rest
    of a sentence. `key` is the map key concerned; `mends`: the changes in `Draft` repair it."""

    kind: str
    path: bytes
    text: str
    key: bytes
    mends: bool = False


@dataclass
class Contents:
    """The records of a map, by kind."""

    inodes: dict[int, Inode] = field(default_factory=dict)
    entries: dict[int, list[tuple[bytes, Entry]]] = field(default_factory=dict)
    """By folder: its names, in order."""
    regions: dict[int, list[tuple[int, Region]]] = field(default_factory=dict)
    """By inode: index and record, in order."""
    orphans: set[int] = field(default_factory=set)
    unreadable_orphans: set[int] = field(default_factory=set)
    """Inodes whose orphan mark cannot be read."""
    next_inode: int | None = None
    unreadable_inodes: set[int] = field(default_factory=set)
    """Inodes whose record exists and cannot be read."""
    unreadable_entries: dict[int, int] = field(default_factory=dict)
    """By folder: how many of its entries cannot be read."""
    unreadable_regions: set[int] = field(default_factory=set)
    """Inodes with a region record that cannot be read."""
    strange: list[tuple[bytes, str]] = field(default_factory=list)
    """Keys that cannot be read or are of no known kind, and why."""

    def exists(self, ino: int) -> bool:
        """Return whether this inode has a record, whatever it says."""
        return ino in self.inodes or ino in self.unreadable_inodes


@dataclass
class Draft:
    """Changes to a map: what is to be put (None: deleted), and what else must be unchanged when they are applied."""

    items: Items
    changes: dict[bytes, bytes | None] = field(default_factory=dict)
    guards: set[bytes] = field(default_factory=set)

    def put(self, key: bytes, value: bytes | None) -> None:
        """Change a key."""
        if value == self.items.get(key):
            self.changes.pop(key, None)
        else:
            self.changes[key] = value

    def put_inode(self, ino: int, inode: Inode) -> None:
        """Change an inode's record. Even if it stays the same, it must still be unchanged when the others are
        applied."""
        self.guards.add(keys.inode(ino))
        self.put(keys.inode(ino), records.encode(inode))

    def expected(self, wanted: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """Return the original values of these keys."""
        return {key: self.items.get(key) for key in wanted}


_NUMBER: Final = keys.NUMBER_BYTES


def read(items: Items) -> Contents:
    """Decode a whole map."""
    found = Contents()
    for key in sorted(items):
        try:
            _read_one(found, key, items[key])
        except OSError as error:
            found.strange.append((key, getattr(error, "strerror", None) or str(error)))
    return found


def _read_one(found: Contents, key: bytes, value: bytes) -> None:
    kind, rest = key[:2], key[2:]
    if kind == b"i/" and len(rest) == _NUMBER:
        ino = keys.number_in(key)
        found.unreadable_inodes.add(ino)
        found.inodes[ino] = records.decode_inode(value)
        found.unreadable_inodes.discard(ino)
    elif kind == b"d/" and len(rest) > _NUMBER + 1 and rest[_NUMBER : _NUMBER + 1] == b"/":
        parent = keys.number_in(key)
        names = found.entries.setdefault(parent, [])
        found.unreadable_entries[parent] = found.unreadable_entries.get(parent, 0) + 1
        names.append((keys.name_of(key), records.decode_entry(value)))
        found.unreadable_entries[parent] -= 1
    elif kind == b"e/" and len(rest) == 2 * _NUMBER:
        ino = keys.number_in(key)
        regions = found.regions.setdefault(ino, [])
        try:
            regions.append((keys.index_of(key), extents.decode(value)))
        except OSError:
            found.unreadable_regions.add(ino)
            raise
    elif kind == b"o/" and len(rest) == _NUMBER:
        ino = keys.orphan_of(key)
        found.orphans.add(ino)
        found.unreadable_orphans.add(ino)
        orphans.decode(value)
        found.unreadable_orphans.discard(ino)
    elif key == keys.NEXT_INODE and len(value) == _NUMBER:
        found.next_inode = int.from_bytes(value, "big")
    elif kind == b"l/" and len(rest) == _NUMBER:
        locks.decode(value)
    elif kind == b"s/" and rest:
        lifetime_s(value)
    elif not keys.is_known(key) or kind in (b"i/", b"d/", b"e/", b"o/", b"l/", b"s/") or key == keys.NEXT_INODE:
        found.strange.append((key, "a key of a kind that this program does not know"))


def shown(path: bytes) -> str:
    """Format a path for use within a sentence."""
    return path.decode("utf-8", "backslashreplace")
