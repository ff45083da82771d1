"""The manifest of a folder of unsaved data, as values and as bytes. Pure.

One line `dfsfuse unsaved FORMAT DIGEST`, then JSON. The digest (BLAKE3) covers everything after the first line: what
does not match it is never used. An unknown format is refused and never guessed at.
"""

from __future__ import annotations

from typing import Final

import msgspec
from blake3 import blake3

from dfsfuse.data.extents import Segment
from dfsfuse.errors import DfsError
from dfsfuse.vfs.open import content_state

FORMAT: Final = 1
_FIRST_WORDS: Final = "dfsfuse unsaved"


class KeptError(DfsError):
    """A folder of unsaved data cannot be read, or is not what was written."""


class Server(msgspec.Struct, frozen=True):
    """One of the four servers, as the mount knew it."""

    name: str
    identity: bytes


class Namespace(msgspec.Struct, frozen=True):
    """Whose data it is. `identity` is the namespace's own, empty if it was unknown; servers are recognised by the
    identities of their folders."""

    user: str
    identity: bytes
    servers: tuple[Server, ...]

    def is_same_as(self, other: Namespace) -> bool:
        """Return whether both are the same namespace: the same user, and the same identity or at least two of the same
        servers' folders (an old client may have given the namespace another identity)."""
        if self.user == other.user and self.identity and self.identity == other.identity:
            return True
        theirs = {(server.name, server.identity) for server in other.servers}
        common = [server for server in self.servers if server.identity and (server.name, server.identity) in theirs]
        return self.user == other.user and len(common) >= 2


class Part(msgspec.Struct, frozen=True):
    """Some bytes of a file: in `data` from `at` on, or those of a segment that is on the servers."""

    offset: int
    length: int
    at: int | None = None
    digest: bytes = b""
    segment: bytes = b""
    """The segment's record (MessagePack), if the bytes are on the servers."""
    segment_offset: int = 0


class KeptFile(msgspec.Struct, frozen=True):
    """The unsaved bytes of one file."""

    inode: int
    path: bytes | None
    written_ns: int
    is_appended: bool
    is_doubtful: bool
    parts: tuple[Part, ...]
    missing_bytes: int = 0
    """Bytes that could not be kept."""
    state: bytes | None = None
    """The file's state when the mount last knew it (`dfsfuse.vfs.open.content_state`); None if the mount did not know
    it."""

    @property
    def regions(self) -> list[int]:
        """Return the regions of the file whose content counts towards `state`."""
        return content_state.regions_written((part.offset for part in self.parts), is_appended=self.is_appended)

    @property
    def size(self) -> int:
        """Return the number of bytes kept."""
        return sum(part.length for part in self.parts)


class Manifest(msgspec.Struct, frozen=True):
    """All that is known about what a mount left."""

    namespace: Namespace
    mountpoint: bytes
    pid: int
    ended_ns: int
    why: str
    files: tuple[KeptFile, ...]


def encode(manifest: Manifest) -> bytes:
    """Encode the manifest as stored in its folder."""
    rest = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    return f"{_FIRST_WORDS} {FORMAT} {blake3(rest).hexdigest()}\n".encode() + rest


def decode(data: bytes) -> Manifest:
    """Decode the manifest. Raises `KeptError`."""
    first, _, rest = data.partition(b"\n")
    words = first.decode(errors="replace").split(" ")
    if " ".join(words[:2]) != _FIRST_WORDS or len(words) != 4:
        raise KeptError("this is not unsaved data kept by a mount")
    if words[2] != str(FORMAT):
        raise KeptError(f"has format {words[2]}, and this program knows format {FORMAT} only")
    if words[3] != blake3(rest).hexdigest():
        raise KeptError("is damaged: it does not match its digest")
    try:
        return msgspec.json.decode(rest, type=Manifest)
    except msgspec.DecodeError as error:
        raise KeptError(f"cannot be understood: {error}") from error


def segment_of(part: Part) -> Segment:
    """Return the segment that has the bytes of a part. Raises `KeptError`."""
    try:
        return msgspec.msgpack.decode(part.segment, type=Segment)
    except msgspec.DecodeError as error:
        raise KeptError(f"the record of a segment cannot be understood: {error}") from error
