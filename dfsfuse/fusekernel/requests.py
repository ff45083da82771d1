"""A request as the kernel sent it, parsed as untrusted input.

Anything wrong with a request raises `MalformedError`, which becomes EINVAL. Pure; no threads of its own. A request
refers to the buffer of the thread that read it and is over when that thread has answered.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.values import Context

NAME_MAX_BYTES = 1024
"""FUSE_NAME_MAX of the kernel; file systems have their own limits."""
PATH_MAX_BYTES = 4096
XATTR_NAME_MAX_BYTES = 255


class MalformedError(Exception):
    """The request does not have the form that its opcode requires."""


class Request:
    """One request. `body` is everything after its header."""

    __slots__ = ("body", "context", "nodeid", "opcode", "unique")

    def __init__(self, opcode: int, nodeid: int, context: Context, body: memoryview) -> None:
        self.opcode = opcode
        self.nodeid = nodeid
        self.context = context
        self.unique = context.unique
        self.body = body

    def fields(self, structure: Struct) -> tuple[Any, ...]:
        """The fixed part of the body."""
        if len(self.body) < structure.size:
            raise MalformedError(f"{len(self.body)} bytes where {structure.size} are due")
        return structure.unpack_from(self.body)

    def name(self, offset: int = 0) -> bytes:
        """Parse the body from `offset` on as one name."""
        (name,) = self.strings(offset, NAME_MAX_BYTES)
        return check_name(name)

    def two_names(self, offset: int) -> tuple[bytes, bytes]:
        """Parse the body from `offset` on as two names."""
        old, new = self._split(offset, 2)
        return check_name(old), check_name(new)

    def strings(self, offset: int, *limits: int) -> list[bytes]:
        """Parse the body from `offset` on as strings, one for each limit, none empty, each at most as long as its
        limit."""
        found = self._split(offset, len(limits))
        for text, limit in zip(found, limits, strict=True):
            if not 0 < len(text) <= limit:
                raise MalformedError(f"a string of {len(text)} bytes, which may have 1 to {limit}")
        return found

    def _split(self, offset: int, count: int) -> list[bytes]:
        found = bytes(self.body[offset:]).split(b"\0")
        if len(found) != count + 1 or found.pop():
            raise MalformedError(f"not {count} strings that each end with NUL")
        return found


def check_name(name: bytes) -> bytes:
    """Check the name of an entry: no slash, not empty, not too long."""
    if not 0 < len(name) <= NAME_MAX_BYTES or b"/" in name:
        raise MalformedError(f"{name[:40]!r} is not a name")
    return name


def parse(message: memoryview) -> Request:
    """Parse a request, given the bytes of one read. Raises `MalformedError`."""
    header = wire.fuse_in_header
    if len(message) < header.size:
        raise MalformedError(f"{len(message)} bytes are not a request")
    length, opcode, unique, nodeid, uid, gid, pid, extensions, _ = header.unpack_from(message)
    context = Context(uid, gid, pid, unique)
    if length != len(message) or 8 * extensions > length - header.size:
        # it still has a number, and so can be answered: with an empty body, which no handler accepts
        return Request(opcode, nodeid, context, message[:0])
    return Request(opcode, nodeid, context, message[header.size : length - 8 * extensions])
