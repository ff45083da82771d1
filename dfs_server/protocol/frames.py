"""Frames: the layout of a message on the wire.

    offset  bytes  field
         0      2  magic, b"DF"
         2      1  version of the wire format, 1
         3      1  zero
         4      4  request id, big-endian; a reply repeats the id of its request
         8      4  length of the body (a message in MessagePack), big-endian
        12      4  length of the payload (raw bytes of a piece), big-endian
        16      .  body, then payload

A frame's size is limited before a byte of it is read, and more strictly before authentication.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from dfs_server.protocol.pieces import MAX_PIECE_BYTES

MAGIC: Final = b"DF"
VERSION: Final = 1
HEADER_BYTES: Final = 16
_HEADER: Final = struct.Struct(">2sBBIII")


class Limits(NamedTuple):
    """The maximum sizes of a frame's parts, in bytes."""

    body_bytes: int
    payload_bytes: int


BEFORE_AUTHENTICATION: Final = Limits(4096, 0)
AFTER_AUTHENTICATION: Final = Limits(4 * 1024 * 1024, MAX_PIECE_BYTES)


class Header(NamedTuple):
    """A frame's header, checked."""

    request_id: int
    body_bytes: int
    payload_bytes: int


class ProtocolError(ValueError):
    """The peer sent something that is not this protocol. The connection cannot be used any further."""


def pack_header(request_id: int, body_bytes: int, payload_bytes: int) -> bytes:
    """The 16 bytes before a frame's body."""
    return _HEADER.pack(MAGIC, VERSION, 0, request_id, body_bytes, payload_bytes)


def parse_header(data: bytes | bytearray | memoryview, limits: Limits) -> Header:
    """Parse exactly 16 bytes. Raises `ProtocolError` if they are not a header, or announce more than `limits`."""
    magic, version, zero, request_id, body_bytes, payload_bytes = _HEADER.unpack(data)
    if magic != MAGIC:
        raise ProtocolError(f"a frame must start with {MAGIC!r}, not {magic!r}: is this a dfs-server's port?")
    if version != VERSION or zero != 0:
        raise ProtocolError(f"wire format {version}; this program speaks {VERSION}")
    if body_bytes > limits.body_bytes:
        raise ProtocolError(f"a body of {body_bytes} bytes; at most {limits.body_bytes} are allowed here")
    if payload_bytes > limits.payload_bytes:
        raise ProtocolError(f"a payload of {payload_bytes} bytes; at most {limits.payload_bytes} are allowed here")
    return Header(request_id, body_bytes, payload_bytes)
