"""The running server: listens, runs a session in a thread for each connection, flushes accepted batches to the tables
when nothing more arrives, deletes dropped pieces, scrubs its data, and stops cleanly.

This is the composition root: it creates and connects folder, accounts, namespaces and sessions. Knows no messages.

Threads: one accepts connections, one serves each connection, one flushes idle namespaces every second, one deletes
dropped pieces every minute, one scrubs; `start` and `stop` belong to the thread that created the daemon. `_lock` guards
`_sessions`. To stop, `_stopping` is set and then `_stop_read` becomes readable for good, which wakes every thread that
waits for a frame or a connection; a thread in the middle of a request finishes it, for at most `STOP_S` seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from dfs_server.config import ServerConfig
from dfs_server.namespace import Namespace
from dfs_server.namespaces import Namespaces
from dfs_server.scrub import schedule as scrub
from dfs_server.server_folder import ServerFolder
from dfs_server.shared.starting import SWITCH_S
from dfs_server.wire.accounts import Accounts
from dfs_server.wire.connection import CLIENT_STALL_S, Connection
from dfs_server.wire.failures import RequestFailedError, failures_told
from dfs_server.wire.session import AUTHENTICATION_S, ServerContext, Session
from dfs_server.wire.shares import Shares

STOP_S: Final = 5.0
FLUSH_INTERVAL_S: Final = 1.0
"""Interval in seconds of the checks for namespaces to which nothing more has arrived: these are flushed."""
SWEEP_INTERVAL_S: Final = 60.0
SCRUB_INTERVAL_S: Final = 60.0
"""Delay after the start, and then interval, of the checks whether a scrub is due."""
MAX_REFUSED_CONNECTIONS: Final = 32
"""This many connections beyond the maximum are told that the server is busy; any more are simply closed."""


log = logging.getLogger(__name__)


class AddressError(Exception):
    """The server cannot listen on this address; the text says why."""


class Daemon:
    """One server. Call `start`, then `stop` once; `address` is where it listens."""

    def __init__(
        self,
        folder: ServerFolder,
        config: ServerConfig,
        host: str,
        port: int,
        *,
        sweep_interval_s: float = SWEEP_INTERVAL_S,
        scrub_interval_s: float = SCRUB_INTERVAL_S,
        stall_s: float = CLIENT_STALL_S,
        authentication_s: float = AUTHENTICATION_S,
    ) -> None:
        self._stall_s = stall_s
        self._config = config
        self._root = folder.path
        self._max_connections = config.max_connections
        self._stopping = threading.Event()
        self._namespaces = Namespaces(
            folder.path, folder.name, grace_s=config.grace_period_s, reserve_bytes=config.reserve_bytes
        )
        self._context = ServerContext(
            server=folder.name,
            identity=folder.identity,
            accounts=Accounts(folder.name, config.users, folder.secret),
            namespaces=self._namespaces,
            shares=Shares(max(1, config.max_connections // 2)),
            stopping=self._stopping.is_set,
            authentication_s=authentication_s,
        )
        self._complaints: dict[tuple[str, str], str] = {}
        """By user and kind of failure: the last message about it. Each key belongs to one thread."""
        self._lock = threading.Lock()
        self._sessions: dict[threading.Thread, socket.socket] = {}
        self._listener = _listen(host, port)
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)
        self._threads = [
            threading.Thread(target=self._accept, name="accept", daemon=True),
            self._every(FLUSH_INTERVAL_S, self._flush_idle, "flush"),
            self._every(sweep_interval_s, self._sweep, "sweep"),
        ]
        if config.scrub_days:
            self._threads.append(self._every(scrub_interval_s, self._scrub, "scrub"))

    @property
    def address(self) -> tuple[str, int]:
        """(host, port); the actual port if the daemon was created with port 0."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    def start(self) -> None:
        """Serve from now on. Connections made since the daemon was created have waited."""
        sys.setswitchinterval(SWITCH_S)
        for thread in self._threads:
            thread.start()

    def stop(self, deadline_s: float = STOP_S) -> None:
        """Accept no new requests, finish those under way (for at most `deadline_s`), close everything."""
        deadline = time.monotonic() + deadline_s
        self._stopping.set()
        os.close(self._stop_write)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._listener.close()
        self._join_sessions(deadline)
        if left := self._running_sessions():
            log.warning("%d requests were not finished within %g s and were abandoned", len(left), deadline_s)
            for sock in left.values():
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            self._join_sessions(time.monotonic() + 1.0)
        if self._running_sessions() or any(thread.is_alive() for thread in self._threads):
            # A thread that hangs on the disk may hold a namespace's lock. Everything acknowledged is durable anyway.
            log.warning("the disk does not answer; leaving without closing the databases")
            return
        self._namespaces.close()
        os.close(self._stop_read)

    # -------------------------------------------------------------- connections

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        while not self._stopping.is_set():
            poll.poll()
            if self._stopping.is_set():
                return
            try:
                self._begin_session(*self._listener.accept())
            except (BlockingIOError, ConnectionError):
                continue
            except OSError as error:
                log.warning("a connection cannot be accepted: %s", error)
                self._stopping.wait(1.0)  # out of descriptors, most likely: other connections must end first
            except Exception:
                log.exception("a connection cannot be accepted, for an unexpected reason")
                self._stopping.wait(1.0)

    def _begin_session(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        running = len(self._running_sessions())
        crowded = running >= self._max_connections
        if running >= self._max_connections + MAX_REFUSED_CONNECTIONS:
            sock.close()
            return
        thread = threading.Thread(
            target=self._run_session, args=(sock, crowded), name=f"session {peer[0]}:{peer[1]}", daemon=True
        )
        with self._lock:
            self._sessions[thread] = sock
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            log.exception("no thread can be started")
            self._forget(thread)
            sock.close()

    def _run_session(self, sock: socket.socket, crowded: bool) -> None:
        try:
            with sock:
                connection = Connection(sock, self._stop_read, stall_s=self._stall_s)
                Session(connection, self._context, crowded=crowded).run()
        except OSError as error:
            log.debug("a connection was lost at once: %s", error)
        finally:
            self._forget(threading.current_thread())

    def _forget(self, thread: threading.Thread) -> None:
        with self._lock:
            self._sessions.pop(thread, None)

    def _running_sessions(self) -> dict[threading.Thread, socket.socket]:
        with self._lock:
            return dict(self._sessions)

    def _join_sessions(self, deadline: float) -> None:
        for thread in self._running_sessions():
            thread.join(max(0.0, deadline - time.monotonic()))

    # -------------------------------------------------------------- flushing, dropped pieces, and scrub

    def _every(self, interval_s: float, work: Callable[[], None], name: str) -> threading.Thread:
        """Return a thread that does this again and again, with pauses, until the server stops."""

        def run() -> None:
            while not self._stopping.wait(interval_s):
                work()

        return threading.Thread(target=run, name=name, daemon=True)

    def _flush_idle(self) -> None:
        self._for_each_user(Namespace.flush_if_idle, "accepted batches cannot be written to the tables")

    def _sweep(self) -> None:
        self._for_each_user(self._delete_dropped, "dropped pieces could not be deleted")

    def _delete_dropped(self, namespace: Namespace) -> None:
        if deleted := namespace.delete_dropped(self._stopping.is_set):
            log.info("%d dropped segments or single pieces were deleted", deleted)

    def _scrub(self) -> None:
        # No separate niceness: a thread that must wait while it holds the interpreter's lock would stop the others.
        period_s = self._config.scrub_days * scrub.DAY_S
        bytes_per_s = self._config.scrub_mb_s * 1e6
        self._for_each_user(
            lambda namespace: namespace.scrub(period_s, bytes_per_s, self._stopping.wait),
            "the scrub failed and will be retried",
        )

    def _for_each_user(self, work: Callable[[Namespace], object], failed: str) -> None:
        """Call `work` for all users who have a folder here, connected or not. Raises nothing: a failure is retried in
        the next round. A failure that stays the same is logged once."""
        for user in sorted(self._config.users):
            if self._stopping.is_set():
                return
            try:
                with failures_told():
                    if (self._root / user).is_dir():
                        work(self._namespaces.of(user))
            except RequestFailedError as error:
                if self._complaints.get((user, failed)) != str(error):
                    log.warning("user %s: %s: %s", user, failed, error)
                self._complaints[user, failed] = str(error)
            else:
                self._complaints.pop((user, failed), None)


def _listen(host: str, port: int) -> socket.socket:
    """Open a listening socket. Raises `AddressError`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise AddressError(f"{host}: this is not an address to listen on: {error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise AddressError(f"the server cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
