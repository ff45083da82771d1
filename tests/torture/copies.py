"""Checks that both copies of every piece are on their homes' disks, and good, by reading the servers' folders.

It uses docs/disk-format.md but none of the code under test: records are read as MessagePack, and digests computed
here. The caller must make sure that nothing changes meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import random as random_numbers
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from blake3 import blake3
from support.flushed import flush
from support.pieces_on_disk import BLOCK_BYTES, DIGEST_BYTES, HEADER_BYTES, LENGTH_OFFSET

PIECES: Final = (1, 2, 3, 4)


class Copy(NamedTuple):
    """A copy that must be on a server's disk according to the map."""

    server: int
    segment: bytes
    number: int
    digest: bytes
    length: int


def maps_digest(root: Path, user: str) -> tuple[int, str]:
    """Return the slot that a server has applied, and a digest of its map without healing's notes."""
    hashed = hashlib.sha256()
    with _database(root, user) as database:
        (slot,) = database.execute("SELECT applied FROM state").fetchone()
        for key, value in database.execute("SELECT key, value FROM map ORDER BY key"):
            hashed.update(struct.pack(">II", len(key), len(value)) + key + value)
    return slot, hashed.hexdigest()


def due(root: Path, user: str, *, newest: bool = True) -> Iterator[Copy]:
    """Every copy of every non-empty piece by one server's map: the `newest` one, while nothing is being written, or the
    current content of its tables."""
    with _database(root, user, newest=newest) as database:
        records = database.execute("SELECT value FROM map WHERE key >= ? AND key < ?", (b"e/", b"e0")).fetchall()
    for (value,) in records:
        _, segments, _ = msgspec.msgpack.decode(value)
        for segment, length, homes, digests, _code in segments:
            for number in PIECES:
                size = length // 4 + (number <= length % 4)
                for server in homes[number - 1] if size else ():
                    yield Copy(server, segment, number, digests[number - 1], size)


def problems(roots: Mapping[int, Path], user: str, by: int) -> tuple[int, list[str]]:
    """Return how many copies must exist by server `by`'s map, and a sentence for each that is wrong."""
    copies, wrong = list(due(roots[by], user)), []
    homes: dict[tuple[bytes, int], set[int]] = {}
    for copy in copies:
        homes.setdefault((copy.segment, copy.number), set()).add(copy.server)
    wrong += [
        f"P{number} of {segment.hex()} has one home only: DFS{min(servers)}"
        for (segment, number), servers in homes.items()
        if len(servers) < 2
    ]
    with contextlib.ExitStack() as stack:
        databases = {server: stack.enter_context(_database(root, user)) for server, root in roots.items()}
        for copy in copies:
            data = _piece(roots[copy.server], databases[copy.server], user, copy)
            if data is None:
                wrong.append(f"P{copy.number} of {copy.segment.hex()} is not on DFS{copy.server}")
            elif len(data) != copy.length or _digest(data) != copy.digest:
                wrong.append(f"P{copy.number} of {copy.segment.hex()} on DFS{copy.server} is bad")
    return len(copies), wrong


def _piece(root: Path, database: sqlite3.Connection, user: str, copy: Copy) -> bytes | None:
    found = database.execute(
        "SELECT data FROM small_pieces WHERE segment = ? AND number = ?", (copy.segment, copy.number)
    ).fetchone()
    if found is not None:
        return bytes(found[0])
    name = copy.segment.hex()
    try:
        raw = (root / user / "pieces" / name[:2] / f"{name}.{copy.number}").read_bytes()
    except FileNotFoundError:
        return None
    if len(raw) < HEADER_BYTES or raw[16:32] != copy.segment:
        return b""
    (length,) = struct.unpack_from(">I", raw, LENGTH_OFFSET)
    levels = DIGEST_BYTES * -(-length // BLOCK_BYTES)
    data = raw[HEADER_BYTES + levels :]
    return data if raw[HEADER_BYTES : HEADER_BYTES + levels] == _level_one(data) else b""


def _level_one(data: bytes) -> bytes:
    return b"".join(blake3(data[at : at + BLOCK_BYTES]).digest() for at in range(0, len(data), BLOCK_BYTES))


def _digest(data: bytes) -> bytes:
    return blake3(_level_one(data)).digest()


def spoil_small_pieces(root: Path, user: str, count: int) -> int:
    """Flip a bit in some small pieces of a server that is not running, and return their number."""
    flush(root, user)
    with contextlib.closing(sqlite3.connect(root / user / "namespace.db")) as database, database:
        rows = database.execute(
            "SELECT segment, number, data FROM small_pieces WHERE length(data) > 0 ORDER BY segment LIMIT ?", (count,)
        ).fetchall()
        for segment, number, data in rows:
            spoiled = bytes([data[0] ^ 1]) + data[1:]
            database.execute(
                "UPDATE small_pieces SET data = ? WHERE segment = ? AND number = ?", (spoiled, segment, number)
            )
    return len(rows)


def spoil_map_rows(root: Path, user: str, random: random_numbers.Random) -> None:
    """Flip a bit in values and keys of the map, and in batches of the log, of a server that is not running."""
    flush(root, user)
    with contextlib.closing(sqlite3.connect(root / user / "namespace.db")) as database, database:
        keys = [key for (key,) in database.execute("SELECT key FROM map WHERE length(value) > 0 ORDER BY key")]
        for key in random.sample(keys, min(len(keys), 20)):
            (value,) = database.execute("SELECT value FROM map WHERE key = ?", (key,)).fetchone()
            database.execute("UPDATE map SET value = ? WHERE key = ?", (_flipped(value, random), key))
        for key in random.sample(keys, min(len(keys), 2)):
            database.execute("UPDATE OR REPLACE map SET key = ? WHERE key = ?", (_flipped(key, random), key))
        rows = database.execute("SELECT slot, batch FROM log ORDER BY slot").fetchall()
        for slot, batch in random.sample(rows, min(len(rows), 3)):
            database.execute("UPDATE log SET batch = ? WHERE slot = ?", (_flipped(batch, random), slot))


def spoil_promises(root: Path, user: str, random: random_numbers.Random) -> None:
    """Change the promise, or the end of the log, of a server that is not running."""
    column = random.choice(["round", "applied", "read_from"])
    with contextlib.closing(sqlite3.connect(root / user / "namespace.db")) as database, database:
        database.execute(f"UPDATE state SET {column} = {column} + ?", (random.choice([-1, 1, 64, 2**20]),))


def _flipped(data: bytes, random: random_numbers.Random) -> bytes:
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


@contextlib.contextmanager
def _database(root: Path, user: str, *, newest: bool = True) -> Iterator[sqlite3.Connection]:
    if newest:
        flush(root, user)
    with contextlib.closing(
        sqlite3.connect(f"file:{root / user / 'namespace.db'}?mode=ro", uri=True, timeout=20)
    ) as database:
        yield database
