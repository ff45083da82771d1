"""One connection to each server, for requests that must arrive one behind the other.

They are opened when they are first needed and stay registered with one poll object. Not thread-safe: they belong to one
exchange at a time, or lie idle in `Lines`, whose lock guards them then.
"""

from __future__ import annotations

import select

from dfsfuse.net.connection import Connection


class OrderedLines:
    """The connections, and what waits for all of them."""

    __slots__ = ("connections", "poll")

    def __init__(self) -> None:
        self.poll = select.poll()
        self.connections: dict[int, Connection] = {}
        """By the server's id."""

    def add(self, connection: Connection) -> None:
        """The connection to its server from now on."""
        self.connections[connection.server.id] = connection
        register(self.poll, connection)

    def drop(self, server: int) -> None:
        """Close the connection to this server, if there is one."""
        connection = self.connections.pop(server, None)
        if connection is not None:
            self.poll.unregister(connection.fd)
            connection.close()

    def close(self) -> None:
        """Close all of them."""
        for server in list(self.connections):
            self.drop(server)


def register(poll: select.poll, connection: Connection) -> None:
    """Have the poll object wait for what the connection waits for."""
    connection.watched = connection.events
    poll.register(connection.fd, connection.watched)
