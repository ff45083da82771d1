"""Checksums of what lies in SQLite's file, so that a flipped bit or a lost row is noticed. Pure.

SQLite checks the structure of its file, not what is in it. A row's checksum is made when it is written and compared
when it is read. Those of the map's items add up: the sum is carried on with each batch, and says of a row that is gone
that it should be there. These find accidents, not people: who can write the file can make checksums too.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import msgspec

_KEY_LENGTHS: Final = 1025
"""Keys are shorter (`protocol.batches.MAX_KEY_BYTES`)."""
_BEGUN: Final = [blake2b(b"%d:" % length, digest_size=8) for length in range(_KEY_LENGTHS)]
"""With the length of the key, so that no byte of it counts as one of the value. A copy is quicker than a new one."""
_MODULUS: Final = 1 << 64
_HALF: Final = 1 << 63


def of_item(key: bytes, value: bytes) -> int:
    """The checksum of an item of the map: 64 bits, signed, as SQLite has integers."""
    hashed = _BEGUN[len(key)].copy()
    hashed.update(key)
    hashed.update(value)
    return int.from_bytes(hashed.digest(), "big", signed=True)


def fits(key: bytes, value: bytes, checksum: int) -> bool:
    """Whether what was read as an item of the map is what was written. Damage may have changed types, too."""
    try:
        return of_item(key, value) == checksum
    except (TypeError, IndexError):
        return False


def total(checksums: Iterable[int], before: int = 0) -> int:
    """The sum of checksums, in 64 bits, signed: in whatever order they come, and less those that are negated."""
    return (before + sum(checksums) + _HALF) % _MODULUS - _HALF


def of_fields(fields: object) -> bytes:
    """The checksum of a row of other fields, 16 bytes."""
    return blake2b(msgspec.msgpack.encode(fields), digest_size=16).digest()
