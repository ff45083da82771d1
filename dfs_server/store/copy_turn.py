"""Whose turn it is to copy the map to this server.

Two clients may find at once that a server needs a copy of the map. If the later copy replaced the earlier one, a map
that takes a while would never be copied: each would end the other's. So a copy that moves is left alone, and one that
has stood still for a moment may be replaced: its client is gone. That pages of two copies never mix does not rest on
this: each page names its copy.

Pure: the time is handed in. Forgotten when the server stops, as is who wanted to copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

COPY_RESTS_S: Final = 5.0
"""How long a copy may stand still before another one may take its place: longer than a client waits for an answer."""


@dataclass(frozen=True, slots=True)
class CopyTurn:
    """The copy that is under way, if any, and when its client was last heard of (the server's clock, seconds)."""

    copy: bytes = b""
    moved_at: float = 0.0

    def may_begin(self, copy: bytes, now: float) -> bool:
        """Whether this copy may begin: the same one again, or one in the place of a copy that stands still."""
        return not self.copy or copy == self.copy or now - self.moved_at >= COPY_RESTS_S


NOBODY: Final = CopyTurn()
