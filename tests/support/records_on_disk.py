"""The records of files' data in a server's map, and the pieces that servers have, read from their folders.

It checks from outside whether every piece is where it belongs. Batches that are accepted but not known to be chosen
are not seen.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from support.flushed import flush

from dfsfuse.data import extents
from dfsfuse.data.placement import ring, rotation_of_region
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys


def _query(root: Path, user: str, query: str, *parameters: bytes) -> list[tuple[bytes, ...]]:
    path = root / user / "namespace.db"
    if not path.exists():  # an empty server, before its first client
        return []
    flush(root, user)
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'small_pieces'").fetchone():  # or just then
            return []
        return database.execute(query, parameters).fetchall()


def region_records(root: Path, user: str) -> dict[bytes, extents.Region]:
    """All region records by key, as this server's map has them."""
    rows = _query(root, user, "SELECT key, value FROM map WHERE key >= ? AND key < ?", *keys.all_files_regions())
    return {key: extents.decode(value) for key, value in rows}


def rotations(root: Path, user: str) -> dict[int, int | None]:
    """The rotations of files by inode number."""
    rows = _query(root, user, "SELECT key, value FROM map WHERE key >= ? AND key < ?", b"i/", b"i0")
    return {keys.number_in(key): records.decode_inode(value).rotation for key, value in rows}


def pieces(root: Path, user: str) -> set[tuple[str, int]]:
    """(segment in hex, number) of all pieces that a server has, large and small."""
    large = {
        (path.stem, int(path.suffix[1:]))
        for path in (root / user / "pieces").rglob("*.[1-4]")
        if path.parent.name not in ("tmp", "quarantine")
    }
    small = _query(root, user, "SELECT segment, number FROM small_pieces")
    return large | {(segment.hex(), int(number)) for segment, number in small}


def at_home(roots: Mapping[str, Path], user: str) -> dict[str, set[tuple[str, int]]]:
    """The pieces that belong on each server, by the records on DFS1 and the mission's ring."""
    by_number = {int(name[-1]): name for name in roots}
    known = rotations(roots["DFS1"], user)
    wanted: dict[str, set[tuple[str, int]]] = {name: set() for name in roots}
    for key, region in region_records(roots["DFS1"], user).items():
        rotation = known.get(keys.number_in(key))
        if rotation is None:
            continue
        for segment in region.segments:
            for number, home in enumerate(ring(rotation_of_region(rotation, keys.index_of(key))), start=1):
                for server in home:
                    wanted[by_number[server]].add((segment.id.hex(), number))
    return wanted


def astray(roots: Mapping[str, Path], user: str) -> list[str]:
    """Describe pieces missing on the ring's homes, and records that name other homes; empty if everything is in
    place."""
    wanted = at_home(roots, user)
    known = rotations(roots["DFS1"], user)
    found = [f"{piece} is not on {name}" for name in roots for piece in wanted[name] - pieces(roots[name], user)]
    for key, region in region_records(roots["DFS1"], user).items():
        rotation = known.get(keys.number_in(key))
        for segment in region.segments:
            homes = segment.homes if rotation is None else ring(rotation_of_region(rotation, keys.index_of(key)))
            if [set(home) for home in homes] != [set(home) for home in segment.homes]:
                found.append(f"{segment.id.hex()}: its record says {segment.homes}, the ring {homes}")
    return found
