"""The base of all messages, and the maximum number of items in one.

Messages are MessagePack arrays whose first element is the tag. The raw bytes of large pieces are sent as a frame's
payload, never in a body. Pure.
"""

from __future__ import annotations

from typing import Final

import msgspec

MAX_HAVE_PIECES: Final = 10_000
MAX_AT_ONCE: Final = 10_000
"""Maximum number of keys, items, batches or pieces in a request: however small they are, each takes memory and time."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The base of all messages: immutable, and tagged with the name of its class."""
