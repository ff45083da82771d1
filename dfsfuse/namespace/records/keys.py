"""The keys of the map. Pure; the only place that knows how they are made.

    i/<inode>            the inode's record
    d/<inode>/<name>     an entry of a directory
    e/<inode><region>    the record of one region of a file's data (made and read by the layer above)
    o/<inode>            an orphan: an inode without a name, still open or being deleted in steps
    n                    the first inode number that no client has reserved
    l/<inode>            the locks on a file
    s/<session>          the heartbeat of a mount that holds locks
    c/servers            which server is which
    h/healing            how far healing has got
    h/bad/<copy>         a copy of a piece that was found to be bad
    u/sweep              when a search for unreferenced pieces last began

Numbers are 8 bytes, big-endian, so that keys sort as numbers do and a directory's entries or a file's regions are one
range. Names are at most 255 bytes: no key comes near the server's limit.
"""

from __future__ import annotations

from typing import Final

from dfs_server.protocol.batches import SEGMENT_ID_BYTES

ROOT: Final = 1
"""The inode number of a namespace's root."""
FIRST_INODE: Final = ROOT + 1
"""The first number that a new inode gets."""

NEXT_INODE: Final = b"n"
NUMBER_BYTES: Final = 8
MAX_NUMBER: Final = 2 ** (8 * NUMBER_BYTES) - 1

_ENTRY_PREFIX_BYTES: Final = 2 + NUMBER_BYTES + 1


def _number(value: int) -> bytes:
    return value.to_bytes(NUMBER_BYTES, "big")


def inode(ino: int) -> bytes:
    """The key of an inode's record."""
    return b"i/" + ino.to_bytes(NUMBER_BYTES, "big")


def is_inode(key: bytes) -> bool:
    """Whether it is the key of an inode's record."""
    return key.startswith(b"i/")


def entry(parent: int, name: bytes) -> bytes:
    """The key of a directory entry."""
    return b"d/" + parent.to_bytes(NUMBER_BYTES, "big") + b"/" + name


def entries(parent: int) -> tuple[bytes, bytes]:
    """The range of a directory's entries."""
    return entry(parent, b""), b"d/" + _number(parent) + b"0"  # "0" comes after "/"


def name_of(key: bytes) -> bytes:
    """The name in the key of an entry."""
    return key[_ENTRY_PREFIX_BYTES:]


def region(ino: int, index: int) -> bytes:
    """The key of the record of a region of a file."""
    return b"e/" + ino.to_bytes(NUMBER_BYTES, "big") + index.to_bytes(NUMBER_BYTES, "big")


def number_in(key: bytes) -> int:
    """The inode number that a key of an inode, an entry (its folder's) or a region begins with."""
    return int.from_bytes(key[2 : 2 + NUMBER_BYTES], "big")


def regions(ino: int, first: int, end: int) -> tuple[bytes, bytes]:
    """The range of the records of regions first <= index < end of a file."""
    return region(ino, first), region(ino, min(end, MAX_NUMBER))


def all_regions(ino: int) -> tuple[bytes, bytes]:
    """The range of all region records of a file."""
    return b"e/" + _number(ino), b"e/" + _number(ino + 1)


def all_files_regions() -> tuple[bytes, bytes]:
    """The range of all region records of all files."""
    return b"e/", b"e0"


def index_of(key: bytes) -> int:
    """The region's index in the key of a region record."""
    return int.from_bytes(key[-NUMBER_BYTES:], "big")


def family_of(key: bytes) -> bytes | None:
    """Return the prefix of the keys that are worth knowing together with this one: a folder's entries, a file's
    regions."""
    if key.startswith(b"d/"):
        return key[:_ENTRY_PREFIX_BYTES]
    if key.startswith(b"e/"):
        return key[: 2 + NUMBER_BYTES]
    if key.startswith(_BAD):
        return _BAD
    return None


def join_of(family: bytes) -> bytes:
    """Return the prefix of the keys that the values of this family name: a folder's entries name inodes. Empty: they
    name none. What follows the prefix is the second element of a value (`dfs_server.protocol.joins`)."""
    return b"i/" if family.startswith(b"d/") and len(family) == _ENTRY_PREFIX_BYTES else b""


def orphan(ino: int) -> bytes:
    """The key that marks an inode without a name."""
    return b"o/" + _number(ino)


def orphans() -> tuple[bytes, bytes]:
    """The range of all orphans' keys."""
    return b"o/", b"o0"


def is_orphan(key: bytes) -> bool:
    """Return whether it is an orphan's key."""
    return key.startswith(b"o/")


def orphan_of(key: bytes) -> int:
    """The inode number in an orphan's key."""
    return int.from_bytes(key[-NUMBER_BYTES:], "big")


def locks(ino: int) -> bytes:
    """The key of a file's locks."""
    return b"l/" + _number(ino)


def all_locks() -> tuple[bytes, bytes]:
    """The range of all files' locks."""
    return b"l/", b"l0"


def sessions() -> tuple[bytes, bytes]:
    """The range of all sessions."""
    return b"s/", b"s0"


def session(session_id: bytes) -> bytes:
    """The key of the heartbeat of a mount that holds locks."""
    return b"s/" + session_id


def bad_copy(segment: bytes, number: int, server: int) -> bytes:
    """The key of a note that this server's copy of a piece is bad."""
    return _BAD + segment + bytes((number, server))


def bad_copies() -> tuple[bytes, bytes]:
    """The range of all such notes."""
    return _BAD, _BAD[:-1] + b"0"


def bad_copy_of(key: bytes) -> tuple[bytes, int, int] | None:
    """The segment, piece and server in the key of such a note."""
    segment, numbers = key[len(_BAD) : -2], key[-2:]
    return (segment, numbers[0], numbers[1]) if len(segment) == SEGMENT_ID_BYTES else None


_BAD: Final = b"h/bad/"

HEALING: Final = b"h/healing"
SERVERS: Final = b"c/servers"
SWEEP: Final = b"u/sweep"

KINDS: Final = (b"c/", b"d/", b"e/", b"h/", b"i/", b"l/", b"o/", b"s/", b"u/")
"""The prefixes of keys, in order; `NEXT_INODE` is the only other key."""
END: Final = b"\xff" * 16
"""After all keys."""


def is_known(key: bytes) -> bool:
    """Return whether this program knows keys of this kind."""
    return key == NEXT_INODE or key[:2] in KINDS


def unknown_ranges() -> list[tuple[bytes, bytes]]:
    """Return the ranges that contain no key of a kind that this program knows."""
    known = sorted([*((kind, kind[:1] + b"0") for kind in KINDS), (NEXT_INODE, NEXT_INODE + b"\0")])
    starts = [b"", *(end for _, end in known)]
    ends = [*(start for start, _ in known), END]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]
