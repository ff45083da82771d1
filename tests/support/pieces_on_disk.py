"""The contents of four servers' folders, read without the code under test, for comparison with the mission's table.

Large pieces are files (`ROOT/<user>/pieces/3f/<segment>.<number>`: a header of 64 bytes, 32 for each block of 64 KiB,
the piece); small ones are rows of `ROOT/<user>/namespace.db`. docs/disk-format.md describes both.
"""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from support.flushed import flush

HEADER_BYTES, BLOCK_BYTES, DIGEST_BYTES = 64, 65536, 32
LENGTH_OFFSET = 12

TABLE = {
    0: {"DFS1": (1, 2), "DFS2": (2, 3), "DFS3": (3, 4), "DFS4": (4, 1)},
    1: {"DFS1": (4, 1), "DFS2": (1, 2), "DFS3": (2, 3), "DFS4": (3, 4)},
    2: {"DFS1": (3, 4), "DFS2": (4, 1), "DFS3": (1, 2), "DFS4": (2, 3)},
    3: {"DFS1": (2, 3), "DFS2": (3, 4), "DFS3": (4, 1), "DFS4": (1, 2)},
}
"""The mission's table, copied by hand: x -> server -> its pair of pieces."""


def cut(data: bytes) -> dict[int, bytes]:
    """P1..P4 of a segment, equally long, except that the first ones are a byte longer if the length is not divisible by
    4."""
    whole, longer = divmod(len(data), 4)
    pieces, start = {}, 0
    for number in (1, 2, 3, 4):
        end = start + whole + (number <= longer)
        pieces[number] = data[start:end]
        start = end
    return pieces


def pieces_of(root: Path, user: str) -> Iterator[tuple[int, bytes]]:
    """(number, data) of every piece that a server has on its disk for this user. The server may be
    sweeping meanwhile."""
    flush(root, user)
    folder = root / user
    for path in (folder / "pieces").rglob("*.[1-4]"):
        if path.parent.name == "tmp":
            continue
        try:
            raw = path.read_bytes()
        except FileNotFoundError:  # removed since the folder was listed
            continue
        (length,) = struct.unpack_from(">I", raw, LENGTH_OFFSET)
        start = HEADER_BYTES + DIGEST_BYTES * -(-length // BLOCK_BYTES)
        assert len(raw) == start + length, path
        yield int(path.suffix[1:]), raw[start:]
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'namespace.db'}?mode=ro", uri=True)) as database:
        yield from database.execute("SELECT number, data FROM small_pieces")


def bytes_in(folder: Path) -> int:
    """The total size of all files below a folder, except those that vanish meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            total += found.st_size * stat.S_ISREG(found.st_mode)
    return total


def large_piece_files(root: Path, user: str) -> list[Path]:
    """Return the files of a server's large pieces."""
    return sorted(path for path in (root / user / "pieces").rglob("*.[1-4]") if path.parent.name != "tmp")


def holders(roots: dict[str, Path], user: str, segment: bytes) -> dict[str, set[int]]:
    """Which of a segment's pieces each server has, byte for byte. The content must be unique to the segment."""
    wanted = {(number, piece) for number, piece in cut(segment).items() if piece}
    return {
        name: {number for number, data in pieces_of(root, user) if (number, data) in wanted}
        for name, root in roots.items()
    }
