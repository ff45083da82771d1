"""Checksums of the rows in SQLite's file, so that a flipped bit or a lost row is noticed. Pure.

SQLite checks the structure of its file, not the contents. A row's checksum is computed when it is written and compared
when it is read. The checksums of the map's items are added up: the sum is updated with each batch, and reveals a row
that has disappeared. They detect accidents, not attacks: anyone who can write the file can compute checksums too.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import msgspec

_KEY_LENGTHS: Final = 1025
"""Greater than the length of any key (`protocol.batches.MAX_KEY_BYTES`)."""
_BEGUN: Final = [blake2b(b"%d:" % length, digest_size=8) for length in range(_KEY_LENGTHS)]
"""Hashes that begin with the length of the key, so that no byte of the key counts as one of the value. Copying one is
faster than starting anew."""
_MODULUS: Final = 1 << 64
_HALF: Final = 1 << 63


def of_item(key: bytes, value: bytes) -> int:
    """The checksum of an item of the map: 64 bits, signed, like SQLite's integers."""
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
    """The sum of checksums, in 64 bits, signed: in any order; negated ones are subtracted."""
    return (before + sum(checksums) + _HALF) % _MODULUS - _HALF


def of_fields(fields: object) -> bytes:
    """The checksum of a row of other fields, 16 bytes."""
    return blake2b(msgspec.msgpack.encode(fields), digest_size=16).digest()
