"""Keeps a namespace's log tidy in the background, in a thread of its own, as long as the client runs.

- Servers that missed batches are brought up to date (`log_repair`). A copy of the whole map may take minutes: it is
  made page by page, to one server at a time, and after a second of it the tender looks after everything else. There is
  no deadline for the whole: it ends when a page fails.
- A batch that stays in doubt has lost its writer. It is finished, under the tender's own name: until then it depends on
  the memory of those who accepted it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from dfs_server.protocol.messages import Error, Position
from dfs_server.protocol.status import Status
from dfsfuse.errors import DfsError
from dfsfuse.log.driving import SOFT_S, drive
from dfsfuse.log.procedures import ALL, DeadlineError, Procedure, R
from dfsfuse.log.proposer import Point
from dfsfuse.log.reading import catch_up
from dfsfuse.log.repair import MapCopy, begin_copy, copy_page, look, pass_on
from dfsfuse.log.state import LogState, News
from dfsfuse.net.cluster import Cluster
from dfsfuse.net.pace import Pace

log = logging.getLogger(__name__)

TEND_EVERY_S: Final = 1.0
TEND_IDLE_EVERY_S: Final = 5.0
"""How often the servers are looked at: while some are missing or behind, and while all is well."""
TEND_DEADLINE_S: Final = 60.0
"""The longest that one step may take: to settle, to finish what is in doubt, to pass on batches, to copy one page."""
RETRY_MAX_S: Final = 120.0
"""A server that could not be brought up to date is left alone for twice as long each time: a map that is read again and
again for a copy that fails is work for all servers. At most for so long."""
RETRY_COPYING_S: Final = 5.0
"""When to look again whether another client is still copying the map there."""


class Tender:
    """The thread. `known` gives the mount's known point, which is replaced as a whole."""

    def __init__(self, cluster: Cluster, client: bytes, known: Callable[[], Point], clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._known = known
        self._clock = clock
        self._log = LogState(client)
        """Its own view of the log: in doubt, it leads for a moment under its own name."""
        self._pace = Pace(SOFT_S)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._doubt = b""
        """The batch that was in doubt when last looked at."""
        self._retry_at: dict[int, tuple[float, float]] = {}
        """When to try again to bring a server up to date, and how long that was waited for."""
        self._copy: MapCopy | None = None
        """The copy of the map that is under way."""
        self._tended: frozenset[int] = frozenset()
        """Servers that were up to date when last looked at; the others are looked at again and again."""
        self._thread = threading.Thread(target=self._loop, name="log-tender", daemon=True)

    def start(self) -> None:
        """Begin to tend."""
        self._thread.start()

    def wake(self) -> None:
        """A server is seen to be behind."""
        self._wake.set()

    def close(self) -> None:
        """End."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _loop(self) -> None:
        while not self._stop.is_set():
            idle = len(self._tended) == len(ALL)
            if self._copy is None:
                self._wake.wait(TEND_IDLE_EVERY_S if idle else TEND_EVERY_S)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                self._tend()
            except Exception:
                log.exception("tending the log failed in a way nobody foresaw; it goes on")
                self._copy, self._tended = None, frozenset()  # a copy is begun again

    def _tend(self) -> None:
        current: set[int] = set()
        try:
            positions = self._drive(look(self._known()))
            self._finish_doubt(positions)
            current = self._bring_up_to_date(positions)
            self._tended = frozenset(current)
        except (DfsError, DeadlineError) as error:
            log.debug("tending the log: %s", error)
        if self._copy is not None:
            self._go_on_copying(self._copy, current)

    def _finish_doubt(self, positions: dict[int, Position]) -> None:
        """A batch that is still in doubt when looked at again has lost its writer: finish it, so that it does not
        depend on the memory of two servers only."""
        tails = {position.tail_digest for position in positions.values() if position.tail_digest}
        if self._doubt in tails:
            self._drive(catch_up(self._log, recall=False))
            self._log.news = News()  # nobody here wants them, and they would be kept for ever
            self._drive(look(self._log.known))
        self._doubt = min(tails, default=b"")

    def _bring_up_to_date(self, positions: dict[int, Position]) -> set[int]:
        """Pass on batches; begin a copy of the map where that is not enough. Returns who is up to date."""
        best = max((position.applied for position in positions.values()), default=0)
        newest = {server for server, position in positions.items() if position.applied == best}
        current = {server for server in newest if not positions[server].wants_copy}
        self._retry_at = {server: at for server, at in self._retry_at.items() if server not in current}
        for server in sorted(positions.keys() - current):
            if self._is_copying_to(server, positions[server]) or not self._may_try(server):
                continue
            passed = self._drive(pass_on(server, sorted(newest - {server})))
            missing = best - positions[server].applied
            if missing and passed.applied >= best:
                level = logging.INFO if missing > 1 else logging.DEBUG
                log.log(level, "%s got %d batches that it missed", self._cluster.names[server], missing)
            if passed.trimmed or positions[server].wants_copy:
                self._begin_copy(server, current)
            elif passed.applied >= best:
                current.add(server)
                del self._retry_at[server]
        return current

    def _may_try(self, server: int) -> bool:
        """Whether it is time to try to bring this server up to date; if so, the next time is later."""
        now = self._clock()
        retry_at, pause_s = self._retry_at.get(server, (now, TEND_EVERY_S / 2))
        if now < retry_at:
            return False
        pause_s = min(2 * pause_s, RETRY_MAX_S)
        self._retry_at[server] = now + pause_s, pause_s
        return True

    # ------------------------------------------------------------------ copying the map

    def _is_copying_to(self, server: int, position: Position) -> bool:
        """Whether a copy to this server is under way. One that it has no more need of is dropped."""
        copy = self._copy
        if copy is None or copy.server != server:
            return False
        if position.applied >= copy.point.slot and not position.wants_copy:
            self._copy = None
        return self._copy is not None

    def _begin_copy(self, server: int, current: set[int]) -> None:
        """If nobody else copies there, and no other copy of ours is under way."""
        if self._copy is None:
            begun = self._drive(begin_copy(server, sorted(current), self._log.next_copy()))
            if isinstance(begun, MapCopy):
                self._copy = begun
                log.info("%s gets a copy of the map", self._cluster.names[server])
            if not isinstance(begun, Error) or begun.status != Status.COPYING:
                return
        self._retry_at[server] = self._clock() + RETRY_COPYING_S, TEND_EVERY_S

    def _go_on_copying(self, copy: MapCopy, current: set[int]) -> None:
        """Page by page, until it is time to look after everything else."""
        sources = sorted(set(ALL) - {copy.server}, key=lambda server: (server not in current, server))
        name = self._cluster.names[copy.server]
        until = self._clock() + TEND_EVERY_S
        self._copy = None
        try:
            while self._drive(copy_page(copy, sources)):
                if copy.applied:
                    self._retry_at.pop(copy.server, None)
                    self._wake.set()  # it lacks what was written meanwhile
                    log.info("%s has a copy of the map: %d records", name, copy.items)
                    return
                if self._clock() >= until or self._stop.is_set():
                    self._copy = copy
                    return
        except (DfsError, DeadlineError) as error:
            log.debug("copying the map: %s", error)
        log.info("the copy of the map to %s failed, and is begun again", name)

    def _drive(self, procedure: Procedure[R]) -> R:
        deadline = self._clock() + TEND_DEADLINE_S
        return drive(procedure, self._cluster, deadline, self._clock, lambda _: None, pace=self._pace)
