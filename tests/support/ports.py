"""Ports for servers that a test starts, kills, and starts again on the same port."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from itertools import chain, cycle

PORTS = range(10_240, 32_000)
"""Below the range for outgoing connections, one of which might otherwise take the port of a server that is down."""
_FIRST = os.getpid() * 331 % len(PORTS)
_next_ports = cycle(chain(PORTS[_FIRST:], PORTS[:_FIRST]))


def free_ports(count: int) -> Sequence[int]:
    """Ports that are free now, and that other processes of the test run will not use soon."""
    found: list[int] = []
    while len(found) < count:
        port = next(_next_ports)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found
