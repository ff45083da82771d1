"""Decides which client may copy the map to this server.

Two clients may find at the same time that a server needs a copy of the map. If the later copy replaced the earlier one,
a map that takes a while would never be copied: each client would end the other's copy. So a copy that makes progress is
left alone, and one that has made none for a while may be replaced: its client is gone. This is not what keeps pages of
two copies from mixing: each page names its copy.

Pure: the time is passed in. Forgotten when the server stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

COPY_RESTS_S: Final = 5.0
"""How long a copy may make no progress before another one may replace it: longer than a client waits for an answer."""


@dataclass(frozen=True, slots=True)
class CopyTurn:
    """The copy under way, if any, and when its client was last active (the server's clock, seconds)."""

    copy: bytes = b""
    moved_at: float = 0.0

    def may_begin(self, copy: bytes, now: float) -> bool:
        """Whether this copy may begin: the same one again, or one that replaces a copy without progress."""
        return not self.copy or copy == self.copy or now - self.moved_at >= COPY_RESTS_S


NOBODY: Final = CopyTurn()
