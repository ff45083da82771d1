"""Which other item an item's value names, so that a server can send both in one reply. Pure.

A value is a MessagePack array, and its second element may be a number. The named key is a prefix, which the client
chooses, followed by this number as 8 bytes, big-endian: so a folder's entry names its inode. A server needs to know
nothing else about values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

MAX_JOINED: Final = 1024
"""At most this many items are sent along with a page: each is looked up by itself."""
_NUMBER_BYTES: Final = 8


class _Naming(msgspec.Struct, frozen=True, array_like=True):
    first: int
    number: int


_decode: Final = msgspec.msgpack.Decoder(_Naming).decode


def named(prefix: bytes, key: bytes, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the keys that these items name, or the item with this key if it is not empty; each once."""
    values = [value for at, value in items if at == key] if key else [value for _, value in items]
    found = dict.fromkeys(joined_key(prefix, value) for value in values)
    return [key for key in found if key is not None][:MAX_JOINED]


def joined_key(prefix: bytes, value: bytes) -> bytes | None:
    """Return the key that this value names, if it does."""
    try:
        return prefix + _decode(value).number.to_bytes(_NUMBER_BYTES, "big")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        return None
