"""The schedule of the scrub: when a server checks its data, and its progress. Pure.

A pass checks every piece once, in the order of (segment, number), and then SQLite's file. A pass begins when the last
one began a period ago (or there was none), continues where it was after a restart, and reads at a limited rate. A clock
that was set back is no reason to wait: a pass that began in the future counts as over.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dfs_server.protocol.batches import SEGMENT_ID_BYTES
from dfs_server.protocol.pieces import PIECE_NUMBERS

FORMAT: Final = 1
DAY_S: Final = 24 * 3600


class Progress(msgspec.Struct, frozen=True):
    """The progress of a namespace's scrub. Times are in seconds since 1970; 0: never."""

    format: int = FORMAT
    began_s: int = 0
    """When the current pass began, or else the last one."""
    is_under_way: bool = False
    after: tuple[str, int] | None = None
    """The last piece that was checked: its segment's id in hex, and its number."""
    checked: int = 0
    """Number of pieces that the current pass has checked."""
    pieces: int = 0
    """Approximate number of pieces, counted when the pass began."""
    passed_s: int = 0
    """When the last complete pass ended."""
    database_checked_s: int = 0
    database: str = ""
    """What SQLite says is wrong with its file; empty if nothing."""

    @property
    def position(self) -> tuple[bytes, int] | None:
        """The last piece that was checked."""
        return (bytes.fromhex(self.after[0]), self.after[1]) if self.after else None

    def is_due(self, now_s: int, period_s: float) -> bool:
        """Whether there is something to do: a pass to continue, or the time for the next one."""
        return self.is_under_way or not self.began_s <= now_s < self.began_s + period_s

    def begun(self, now_s: int, pieces: int) -> Progress:
        """Begin a pass. One that is under way continues unchanged."""
        if self.is_under_way:
            return self
        return msgspec.structs.replace(self, began_s=now_s, is_under_way=True, after=None, checked=0, pieces=pieces)

    def looked_at(self, segment: bytes, number: int) -> Progress:
        """Record that one more piece was checked."""
        return msgspec.structs.replace(self, after=(segment.hex(), number), checked=self.checked + 1)

    def ended(self, now_s: int, database: str) -> Progress:
        """The pass is over: the last thing it checked was SQLite's file."""
        return msgspec.structs.replace(
            self, is_under_way=False, after=None, passed_s=now_s, database_checked_s=now_s, database=database
        )


def pause_s(size_bytes: int, bytes_per_s: float) -> float:
    """How long to pause after reading this many bytes, so as not to exceed the rate."""
    return size_bytes / bytes_per_s


def encode(progress: Progress) -> bytes:
    """Encode it for its file."""
    return msgspec.json.format(msgspec.json.encode(progress)) + b"\n"


def decode(data: bytes) -> Progress | None:
    """Decode the contents of the file. None if they are not valid: then a new pass begins, which loses nothing."""
    try:
        progress = msgspec.json.decode(data, type=Progress)
        position = progress.position
    except ValueError:  # msgspec's errors are ValueErrors too
        return None
    if position is not None and (len(position[0]) != SEGMENT_ID_BYTES or position[1] not in PIECE_NUMBERS):
        return None
    return progress if progress.format == FORMAT else None
