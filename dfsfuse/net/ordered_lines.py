"""One connection to each server, for requests that must arrive in order.

They are opened when first needed and stay registered with one poll object. Not thread-safe: they belong to one exchange
at a time, or are idle in `Lines`, whose lock then guards them.
"""

from __future__ import annotations

import select

from dfsfuse.net.connection import Connection


class OrderedLines:
    """The connections, and the poll object that waits for all of them."""

    __slots__ = ("connections", "order", "poll")

    def __init__(self) -> None:
        self.poll = select.poll()
        self.connections: dict[int, Connection] = {}
        """By the server's id."""
        self.order: list[int] = []
        """The servers, in the order in which they have answered last: a guess at who answers first the next time."""

    def add(self, connection: Connection) -> None:
        """Set the connection to its server."""
        self.connections[connection.server.id] = connection
        register(self.poll, connection)

    def heard(self, server: int) -> None:
        """Record that this server has answered, later than all others."""
        if server in self.order:
            self.order.remove(server)
        self.order.append(server)

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
    """Register what the connection waits for with the poll object."""
    connection.watched = connection.events
    poll.register(connection.fd, connection.watched)
