"""Peers that vanish, as when a cable is pulled or a machine loses power: the kernel drops packets for them.

A filter on the peer's own socket (SO_ATTACH_FILTER) drops each packet before TCP sees it, so nothing is acknowledged.
This needs no privileges and no network namespace, and affects no other traffic.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

SO_ATTACH_FILTER: Final = 26
_DROP_ALL: Final = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A program for the kernel's packet filter: return 0, the number of bytes to keep."""


def vanish(*sockets: socket.socket) -> None:
    """Drop all packets for these sockets, connected or listening, from now on."""
    for each in sockets:
        code = ctypes.create_string_buffer(_DROP_ALL)
        each.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(code)))
