"""When a server checks what it holds, and how far it is: the schedule of the scrub. Pure.

A pass looks at every piece once, in the order of (segment, number), and then at SQLite's file. One begins when the last
one began a period ago (or there was none), goes on where it was after a restart, and reads no more than so many bytes a
second. A clock that was set back is no reason to wait: a pass that began in the future is over.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dfs_server.protocol.batches import SEGMENT_ID_BYTES
from dfs_server.protocol.pieces import PIECE_NUMBERS

FORMAT: Final = 1
DAY_S: Final = 24 * 3600


class Progress(msgspec.Struct, frozen=True):
    """How far the scrub of a namespace is. Times are in seconds since 1970; 0: never."""

    format: int = FORMAT
    began_s: int = 0
    """When the present pass began, or else the last one."""
    is_under_way: bool = False
    after: tuple[str, int] | None = None
    """The last piece that was looked at: its segment's id in hex, and its number."""
    checked: int = 0
    """How many pieces the present pass has looked at,"""
    pieces: int = 0
    """of about so many, counted when it began."""
    passed_s: int = 0
    """When the last whole pass ended."""
    database_checked_s: int = 0
    database: str = ""
    """What SQLite says is wrong with its file; empty if nothing is."""

    @property
    def position(self) -> tuple[bytes, int] | None:
        """The last piece that was looked at."""
        return (bytes.fromhex(self.after[0]), self.after[1]) if self.after else None

    def is_due(self, now_s: int, period_s: float) -> bool:
        """Whether there is something to do: a pass to go on with, or the time for the next one."""
        return self.is_under_way or not self.began_s <= now_s < self.began_s + period_s

    def begun(self, now_s: int, pieces: int) -> Progress:
        """A pass begins. One that is under way goes on as it is."""
        if self.is_under_way:
            return self
        return msgspec.structs.replace(self, began_s=now_s, is_under_way=True, after=None, checked=0, pieces=pieces)

    def looked_at(self, segment: bytes, number: int) -> Progress:
        """One more piece was looked at."""
        return msgspec.structs.replace(self, after=(segment.hex(), number), checked=self.checked + 1)

    def ended(self, now_s: int, database: str) -> Progress:
        """The pass is over: the last thing it looked at was SQLite's file."""
        return msgspec.structs.replace(
            self, is_under_way=False, after=None, passed_s=now_s, database_checked_s=now_s, database=database
        )


def pause_s(size_bytes: int, bytes_per_s: float) -> float:
    """How long to rest after reading so much, so that no more than so much is read in a second."""
    return size_bytes / bytes_per_s


def encode(progress: Progress) -> bytes:
    """For the file that remembers it."""
    return msgspec.json.format(msgspec.json.encode(progress)) + b"\n"


def decode(data: bytes) -> Progress | None:
    """What is in the file. None if that is nothing we know: then a pass begins anew, which loses nothing."""
    try:
        progress = msgspec.json.decode(data, type=Progress)
        position = progress.position
    except ValueError:  # msgspec's errors are ValueErrors too
        return None
    if position is not None and (len(position[0]) != SEGMENT_ID_BYTES or position[1] not in PIECE_NUMBERS):
        return None
    return progress if progress.format == FORMAT else None
