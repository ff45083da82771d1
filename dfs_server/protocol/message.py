"""What all messages have in common, and the most that one may name.

Messages are MessagePack arrays whose first element is the tag. Raw bytes of large pieces travel as a frame's payload,
never in a body. Pure.
"""

from __future__ import annotations

from typing import Final

import msgspec

MAX_HAVE_PIECES: Final = 10_000
MAX_AT_ONCE: Final = 10_000
"""The most keys, items, batches or pieces in a request: however small they are, each takes memory and time."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What all messages have in common: immutable, and tagged with the name of its class."""
