"""How long a server that moves no byte is waited for, by kind of request. Pure.

A server that owes an answer and is silent for this long is considered down; `slowness` says when it is given longer.
"""

from __future__ import annotations

from typing import Final

DEFAULT_S: Final = 2.0
PING_S: Final = 1.0
"""Whether it is back; asked every few seconds."""
STATUS_S: Final = 2.0
"""Its status: a person looks at the screen."""
ROOM_S: Final = 0.5
"""How much room it has: a program waits in statfs(2), and the other servers' answers will do."""
LOG_S: Final = 3.0
"""Requests about the log."""
HAVE_S: Final = 3.0
"""Which pieces it has."""
SMALL_PIECES_S: Final = 3.0
"""Many small pieces at once."""
PIECE_S: Final = 4.0
"""A piece, in either direction."""
MAP_S: Final = 5.0
"""A page of the whole map."""
