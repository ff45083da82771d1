"""Keeps a namespace's log tidy in the background, in a thread of its own, as long as a mount is there.

- Servers that missed batches are brought up to date (`log_repair`).
- A batch that stays in doubt has lost its writer. It is finished, under the tender's own name: until then it depends on
  the memory of those who accepted it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from dfs_server.protocol.messages import Position
from dfsfuse.cluster.cluster import Cluster
from dfsfuse.cluster.driving import SOFT_S, drive
from dfsfuse.cluster.log_reading import catch_up
from dfsfuse.cluster.log_repair import bring_up_to_date, settle
from dfsfuse.cluster.log_state import LogState, News
from dfsfuse.cluster.pace import Pace
from dfsfuse.cluster.procedures import ALL, DeadlineError, Procedure, R
from dfsfuse.cluster.proposer import Point
from dfsfuse.errors import DfsError

log = logging.getLogger(__name__)

TEND_EVERY_S: Final = 1.0
TEND_IDLE_EVERY_S: Final = 5.0
"""How often the servers are looked at: while some are missing or behind, and while all is well."""
TEND_DEADLINE_S: Final = 60.0
RETRY_MAX_S: Final = 120.0
"""A server that could not be brought up to date is left to others for twice as long each time: one copy of the map ends
another one to the same server, and tenders that begin again at once would never be done. At most for so long."""


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
            self._wake.wait(TEND_IDLE_EVERY_S if idle else TEND_EVERY_S)
            self._wake.clear()
            if not self._stop.is_set():
                self._tend()

    def _tend(self) -> None:
        try:
            positions = self._drive(settle(self._known()))
            self._finish_doubt(positions)
            self._tended = frozenset(self._bring_up_to_date(positions))
        except (DfsError, DeadlineError) as error:
            log.debug("tending the log: %s", error)

    def _finish_doubt(self, positions: dict[int, Position]) -> None:
        """A batch that is still in doubt when looked at again has lost its writer: finish it, so that it does not
        depend on the memory of two servers only."""
        tails = {position.tail_digest for position in positions.values() if position.tail_digest}
        if self._doubt in tails:
            self._drive(catch_up(self._log, recall=False))
            self._log.news = News()  # nobody here wants them, and they would be kept for ever
            self._drive(settle(self._log.known))
        self._doubt = min(tails, default=b"")

    def _bring_up_to_date(self, positions: dict[int, Position]) -> set[int]:
        best = max((position.applied for position in positions.values()), default=0)
        current = {server for server, position in positions.items() if position.applied == best}
        self._retry_at = {server: at for server, at in self._retry_at.items() if server not in current}
        for server in positions.keys() - current:
            name = self._cluster.names[server]
            missing = best - positions[server].applied
            retry_at, pause_s = self._retry_at.get(server, (self._clock(), TEND_EVERY_S / 2))
            if self._clock() < retry_at:
                continue
            pause_s = min(2 * pause_s, RETRY_MAX_S)
            self._retry_at[server] = self._clock() + pause_s, pause_s
            if self._drive(bring_up_to_date(server, min(current), self._log.next_copy())) >= best:
                current.add(server)
                del self._retry_at[server]
                log.log(
                    logging.INFO if missing > 1 else logging.DEBUG, "%s got %d batches that it missed", name, missing
                )
        return current

    def _drive(self, procedure: Procedure[R]) -> R:
        deadline = self._clock() + TEND_DEADLINE_S
        return drive(procedure, self._cluster, deadline, self._clock, lambda _: None, pace=self._pace)
