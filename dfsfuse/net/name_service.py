"""Resolves a host's name to addresses to connect to.

Knows the name service and nothing else of the network. `look_up` may block for seconds on a host's name (never on a
number); the caller chooses the thread.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from dfsfuse.net.servers import ServerAddress


class Target(NamedTuple):
    """Where a socket connects to."""

    family: int
    address: tuple[str | int | bytes, ...]


def look_up_number(server: ServerAddress) -> tuple[Target, ...]:
    """Return the server's address if `host` is a number (127.0.0.1, ::1), else nothing. Never blocks."""
    try:
        return _targets(server, socket.AI_NUMERICHOST)
    except OSError:
        return ()


def look_up(server: ServerAddress) -> tuple[Target, ...]:
    """Return all addresses of the server's host, best first. Raises OSError if the name cannot be resolved. May
    block."""
    return _targets(server, 0)


def _targets(server: ServerAddress, flags: int) -> tuple[Target, ...]:
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError as error:  # an empty label, as in `a..b`, or one of over 63 letters
        raise socket.gaierror(socket.EAI_NONAME, "no host can have such a name") from error
    return tuple(Target(family, tuple(address)) for family, _, _, _, address in found)
