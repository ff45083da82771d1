"""What a client has of each server: its addresses, its health, and its idle connections. Thread-safe; starts no
threads.

Exchanges borrow connections here and give them back. All logging about servers that come and go is done here, one line
per change. Whether a server is worth asking is decided by `Health` (`dfsfuse.net.health`).

Invariant: a connection is idle here (in `_idle` or `_ordered`), or with one exchange. Idle ones may be owed replies, or
be not yet authenticated: the borrower of such a connection continues from there.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final, Protocol

from dfsfuse.common.events import Events
from dfsfuse.errors import WrongServerError
from dfsfuse.net.connection import Connection
from dfsfuse.net.health.health import Health
from dfsfuse.net.health.slowness import is_waited_for
from dfsfuse.net.name_service import Target, look_up, look_up_number
from dfsfuse.net.ordered_lines import OrderedLines
from dfsfuse.net.servers import Credentials, ServerAddress, UnknownHostError

AUTHENTICATION_S: Final = 2.0
"""A connection must be open and authenticated within this time."""
OWED_S: Final = 5.0
"""A reply that has been owed for longer is not waited for: its connection is closed."""
MAX_IDLE: Final = 8
"""Number of idle connections kept per server."""
MAX_ORDERED: Final = 2
"""Number of idle `OrderedLines` kept: one for the log, one for a concurrent reader of it."""

log = logging.getLogger(__name__)


class Debtors(Protocol):
    """An exchange, as far as it knows who owes it an answer."""

    def silences(self) -> list[tuple[int, float]]:
        """Return the servers that owe an answer, and since when nothing has come from each. Called from any thread."""
        ...


class Lines:
    """The connections to the four servers."""

    def __init__(
        self,
        servers: Sequence[ServerAddress],
        credentials: Credentials,
        *,
        clock: Callable[[], float] = time.monotonic,
        look_up: Callable[[ServerAddress], tuple[Target, ...]] = look_up,
        events: Events | None = None,
    ) -> None:
        self.servers = {server.id: server for server in servers}
        self._events = events or Events()
        self.clock = clock
        self.on_trial_due: Callable[[], None] = lambda: None
        """Called, on any thread, when a server has gone down, or may be found at another address. It must not wait."""
        self.health = Health(self.servers, clock, time.time_ns, threading.Lock())
        # of the folders that answered last; guarded by _lock, except for reading
        self.identities: dict[int, bytes] = {}
        self.exchanges: set[Debtors] = set()
        """The open ones. Accessed by atomic set operations only."""
        self._credentials = credentials
        self._look_up = look_up
        self._lock = threading.Lock()
        self._idle: dict[int, list[Connection]] = {id: [] for id in self.servers}  # guarded by _lock
        self._ordered: list[OrderedLines] = []  # idle; guarded by _lock
        self._targets = {id: look_up_number(server) for id, server in self.servers.items()}
        self._closed = False  # guarded by _lock

    # ------------------------------------------------------------------ health

    def are_slow(self, *borrowed: Connection) -> bool:
        """See `Health.are_slow`. `borrowed` were idle until a moment ago."""
        with self._lock:
            idle = [*borrowed, *chain.from_iterable(map(self._at_rest, self.servers))]
            owed: list[tuple[int, float | None]] = [(each.server.id, each.silent_since()) for each in idle]
        owed_since: dict[int, float] = {}
        for id, since in chain(owed, *(exchange.silences() for exchange in list(self.exchanges))):
            if since is not None:
                owed_since[id] = min(since, owed_since.get(id, since))
        return self.health.are_slow(owed_since)

    def failed(self, id: int, text: str, *, quick: bool, tried: bool = True) -> None:
        """Record that the server did not answer. Its idle connections are useless too."""
        if not self.health.failed(id, text, quick=quick, tried=tried):
            return
        with self._lock:
            self._close_idle(id)
        log.warning("%s; trying again in the background", text)
        self.on_trial_due()

    def notice_hang_ups(self) -> None:
        """Find servers that were killed while no request was in flight: they have closed our connections."""
        with self._lock:
            gone = [
                id
                for id in sorted(self.health.usable)
                if any(connection.is_hung_up() for connection in self._at_rest(id))
            ]
        for id in gone:
            text = f"{self.servers[id]} does not answer: it has closed the connection"
            self.failed(id, text, quick=True, tried=False)

    def note_fault(self, id: int, what: str) -> None:
        """Record that the server's answer was not what it should be."""
        self.health.did_wrong(id, what)
        self._events.on_servers_changed()

    def said_room(self, id: int, *, full: bool) -> None:
        """Record whether the server, in its answer, said it has room for data."""
        if (full or id in self.health.full) and self.health.said_room(id, full=full):
            name = self.servers[id].name
            log.warning("%s %s", name, "is full: data goes to others" if full else "has room again")

    def answered(self, id: int) -> None:
        """Record a complete answer of the server."""
        if id not in self.health.usable and self.health.answered(id):
            log.warning("%s answers again", self.servers[id])

    def met(self, id: int, identity: bytes) -> WrongServerError | None:
        """Record that this folder has answered. Returns the error if it is a copy of another server's folder."""
        if self.identities.get(id) == identity:
            return None
        with self._lock:
            twin = next((other for other, known in self.identities.items() if known == identity and other != id), None)
            if twin is None:
                before, self.identities[id] = self.identities.get(id), identity
        if twin is not None:
            return WrongServerError(
                f"{self.servers[id]} has the same identity as {self.servers[twin]}: the folder of one is a copy of the "
                "other's; start the copy on an empty folder, which is filled from the other servers"
            )
        if before is not None:
            log.warning("%s answers with another folder than before", self.servers[id])
        self._events.on_servers_changed()
        return None

    # ------------------------------------------------------------------ addresses

    def look_up(self, id: int) -> None:
        """Find the server's address if its host is a name; call on a thread that may wait."""
        server = self.servers[id]
        if look_up_number(server):
            return
        try:
            self._targets[id] = self._look_up(server)
        except OSError as error:
            log.debug("%s: the name %r cannot be resolved: %s", server, server.host, error)

    def addresses(self, id: int) -> int:
        """Return how many addresses there are to try."""
        return len(self._targets[id])

    def try_next_address(self, id: int) -> None:
        """Move on from the first of the server's addresses, which led nowhere."""
        first, *others = self._targets[id]
        self._targets[id] = (*others, first)

    def readdress(self, servers: Sequence[ServerAddress], credentials: Credentials) -> list[int]:
        """Change servers' addresses. Idle connections to the old ones are closed, and a server that was down is tried
        at its new one at once. Returns the ids of those that have moved."""
        with self._lock:
            self._credentials = credentials
            moved = [server.id for server in servers if self.servers[server.id] != server]
            for server in servers:
                if server.id in moved:
                    self.servers[server.id] = server
                    self._targets[server.id] = look_up_number(server)
                    self.health.moved(server.id)
                    self._close_idle(server.id)
        return moved

    # ------------------------------------------------------------------ connections

    def fresh(self, id: int) -> Connection:
        """Return a new connection. Raises OSError if that is known to be in vain."""
        server, targets = self.servers[id], self._targets[id]
        if not targets:
            raise UnknownHostError(errno.EHOSTUNREACH, f"its host name {server.host!r} cannot be resolved")
        return Connection(server, targets[0], self._credentials, self.clock())

    def borrow(self, id: int) -> Connection | None:
        """Return an idle connection, or None if there is none. Its server may have closed it. Raises what `catch_up`
        does."""
        while True:
            with self._lock:
                if not self._idle[id]:
                    return None
                connection = self._idle[id].pop()
            if (connection.ready and not connection.owed) or self.catch_up(connection):
                return connection

    def borrow_unasked(self, id: int) -> Connection | None:
        """Return an idle connection that owes nothing, to a server that is up, if there is one. Whether the server has
        closed it since is not checked: the borrower finds out."""
        with self._lock:
            idle = self._idle[id]
            if not idle or id not in self.health.usable:
                return None
            return idle.pop() if idle[-1].ready and not idle[-1].owed else None

    def catch_up(self, connection: Connection) -> bool:
        """Read what has come on a connection that was idle. Returns False, having closed it, if it is of no further
        use.

        Raises, with the connection closed, what `Connection.advance` does; TimeoutError if an answer is overdue: a
        hanging server that nothing waits for, since the others are faster, is detected here; unless it is slow together
        with others.
        """
        try:
            moved = connection.catch_up()
        except OSError:
            connection.close()
            return False
        except BaseException:
            connection.close()
            raise
        due = connection.owed_until if connection.ready else connection.opened_at + AUTHENTICATION_S
        if due is None or (now := self.clock()) < max(due, self.health.excused_at + AUTHENTICATION_S):
            return True
        since = None if moved else connection.silent_since()
        is_slow = since is not None and is_waited_for(since, now) and self.are_slow(connection)
        if is_slow and not connection.is_peer_gone():
            return True
        connection.close()
        if moved:  # it answers; it was this side that did not look
            return False
        raise TimeoutError(errno.ETIMEDOUT, "it has owed an answer for too long")

    def give_back(self, connection: Connection) -> None:
        """Take back a connection that an exchange no longer needs and that can be used again."""
        id = connection.server.id
        with self._lock:
            idle = self._idle[id]
            if not self._closed and len(idle) < MAX_IDLE:
                if connection.ready and not connection.owed:
                    idle.append(connection)  # the next to be borrowed
                else:
                    idle.insert(0, connection)
                return
        connection.close()

    def take_ordered(self) -> OrderedLines:
        """Return the connections for requests in order, as the exchange before left them; new ones if others use
        them."""
        with self._lock:
            return self._ordered.pop() if self._ordered else OrderedLines()

    def put_back(self, ordered: OrderedLines) -> None:
        """Take back the connections of an exchange that no longer needs them."""
        with self._lock:
            if not self._closed and len(self._ordered) < MAX_ORDERED:
                self._ordered.append(ordered)
                return
        ordered.close()

    def close(self) -> None:
        """Close all idle connections, and those that are given back from now on."""
        with self._lock:
            self._closed = True
        self.hang_up()

    def hang_up(self) -> None:
        """Close all idle connections."""
        with self._lock:
            for id in self.servers:
                self._close_idle(id)

    def _at_rest(self, id: int) -> Iterator[Connection]:
        """Return the idle connections to this server. The caller has the lock."""
        yield from self._idle[id]
        for ordered in self._ordered:
            if id in ordered.connections:
                yield ordered.connections[id]

    def _close_idle(self, id: int) -> None:
        """Close the idle connections to this server. The caller has the lock."""
        for connection in self._idle[id]:
            connection.close()
        self._idle[id].clear()
        for ordered in self._ordered:
            ordered.drop(id)
