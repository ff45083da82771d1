"""Records as bytes, in the same way for all: MessagePack arrays with the format first. Pure.

Records are immutable. Fields are added at the end, with a default. A record of another format is refused and never
guessed at.
"""

from __future__ import annotations

import errno
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from dfsfuse.errors import posix_error

_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What decoding raises for unexpected bytes."""

encode: Final = msgspec.msgpack.Encoder().encode
"""A record's bytes."""


class Record(Protocol):
    """What records have in common."""

    @property
    def format(self) -> int:
        """Return the format that the record was written in."""
        ...


R = TypeVar("R", bound=Record)


class Codec(Generic[R]):
    """Decodes the records of one kind. `what` names such a record in messages, `known` is the format that is known."""

    def __init__(self, kind: type[R], what: str, known: int) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._what = what
        self._known = known

    def decode(self, data: bytes) -> R:
        """Decode a record. Raises OSError (EIO) if the bytes are not one of the known format."""
        try:
            record = self._decoder.decode(data)
        except _UNREADABLE as error:
            raise self._unreadable(data, str(error)) from error
        if record.format != self._known:
            raise self._unreadable(data, "")
        return record

    def find(self, data: bytes | None) -> R | None:
        """Decode a record; None if there is none, or if it cannot be read: for records that are only news."""
        try:
            return None if data is None else self.decode(data)
        except OSError:
            return None

    def _unreadable(self, data: bytes, why: str) -> OSError:
        """Return EIO with a sentence: the record's format, if it is not the known one (a newer client's record may have
        fields of other types); else what is wrong with it."""
        try:
            found = msgspec.msgpack.decode(data)
        except _UNREADABLE:
            found = None
        if isinstance(found, list) and found and type(found[0]) is int and found[0] != self._known:
            why = f"format {found[0]}; this program knows format {self._known}"
        return posix_error(errno.EIO, f"cannot read the record of {self._what}: {why}")
