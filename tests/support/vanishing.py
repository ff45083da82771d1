"""Peers that vanish, as when a cable is pulled or a machine loses power: what comes for them is dropped by the kernel.

A filter on the peer's own socket (SO_ATTACH_FILTER) drops each packet before TCP sees it, so nothing is confirmed. That
takes no rights and no network namespace, and nobody else's traffic is touched.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

SO_ATTACH_FILTER: Final = 26
_DROP_ALL: Final = struct.pack("HBBI", 0x06, 0, 0, 0)
"""Of the kernel's packet filters: return 0, the number of bytes to keep."""


def vanish(*sockets: socket.socket) -> None:
    """What comes for these sockets, connected or listening, is dropped from now on."""
    for each in sockets:
        code = ctypes.create_string_buffer(_DROP_ALL)
        each.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(code)))
